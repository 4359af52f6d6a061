//! Which slots are to fire now. A pure function of the calendar, of the last slot that was
//! considered and of the time; both owners, and the one who explains, use it.
