//! Memory that the process keeps for later, and what it gives back while it rests.

use std::time::{Duration, Instant};

/// glibc's own thresholds for mapping and for giving back, bytes (mallopt(3)).
#[cfg(target_env = "gnu")]
const THRESHOLD: i32 = 128 * 1024;
/// How long nothing must have run before the process rests.
const CALM: Duration = Duration::from_secs(10);
/// Pause before what was used since is given back again.
const AGAIN: Duration = Duration::from_secs(60);

/// Keeps glibc's thresholds where they begin. Otherwise they rise with each large piece that is
/// freed, up to 64 MiB: one large slice that was read once would stay in the process for ever. To
/// be called before there are threads.
pub(crate) fn keep_little() {
    #[cfg(target_env = "gnu")]
    for parameter in [libc::M_MMAP_THRESHOLD, libc::M_TRIM_THRESHOLD] {
        #[expect(unsafe_code, reason = "the C library has no other way to be told")]
        // SAFETY: mallopt takes two numbers, and no other thread allocates yet. That it may refuse
        // them costs memory only.
        let _ = unsafe { libc::mallopt(parameter, THRESHOLD) };
    }
}

/// When to give memory back.
#[derive(Debug)]
pub(crate) struct Rest {
    due: Instant,
}

impl Rest {
    /// Of a process that is just starting.
    pub(crate) fn new() -> Self {
        Self {
            due: Instant::now() + CALM,
        }
    }

    /// Time until it is due.
    pub(crate) fn left(&self) -> Duration {
        self.due.saturating_duration_since(Instant::now())
    }

    /// Gives memory back if it is time; `busy` says that attempts run, which puts it off.
    pub(crate) fn turn(&mut self, busy: bool) {
        let now = Instant::now();
        if busy {
            self.due = now + CALM;
        } else if now >= self.due {
            self.due = now + AGAIN;
            give_back();
        }
    }
}

/// Gives back the free pages of the allocator, and the pages of the program that are only mapped
/// since something ran that may not run again for long, like the start. The system keeps those in
/// its cache as long as it has room; what is used again is mapped again without a read.
fn give_back() {
    #[cfg(target_env = "gnu")]
    {
        #[expect(unsafe_code, reason = "the C library has no other way to be told")]
        // SAFETY: malloc_trim takes a number and may be called at any time by any thread.
        let _ = unsafe { libc::malloc_trim(0) };
    }
    #[cfg(target_os = "linux")]
    for (start, length) in program::unwritable() {
        program::unmap_pages(start, length);
    }
}

/// The pages of the running program.
#[cfg(target_os = "linux")]
mod program {
    use libc::{PF_W, PT_LOAD, c_int, c_void, dl_phdr_info, size_t};

    /// Addresses and lengths, whole pages, of the program's segments that nobody can ever have
    /// written to: code and constants without relocations. Those of libraries are left out; other
    /// processes share them.
    pub(super) fn unwritable() -> Vec<(usize, usize)> {
        let mut found: Vec<(usize, usize)> = Vec::new();
        #[expect(unsafe_code, reason = "the loader has no other way to be asked")]
        // SAFETY: `look` gets what it expects as `data`, which outlives the call.
        unsafe {
            libc::dl_iterate_phdr(Some(look), (&raw mut found).cast());
        }
        found
    }

    #[expect(unsafe_code, reason = "called by the loader with what it knows")]
    unsafe extern "C" fn look(info: *mut dl_phdr_info, _: size_t, data: *mut c_void) -> c_int {
        // SAFETY: the loader describes the program that runs; `data` is the list of `unwritable`.
        let (base, headers, found) = unsafe {
            let (headers, count) = ((*info).dlpi_phdr, (*info).dlpi_phnum);
            (
                (*info).dlpi_addr,
                std::slice::from_raw_parts(headers, count.into()),
                &mut *data.cast::<Vec<(usize, usize)>>(),
            )
        };
        let page = rustix::param::page_size();
        for header in headers {
            if header.p_type != PT_LOAD || header.p_flags & PF_W != 0 {
                continue;
            }
            let start = (base + header.p_vaddr) as usize;
            let end = start + header.p_filesz as usize;
            let (start, end) = (start.next_multiple_of(page), end - end % page);
            if start < end {
                found.push((start, end - start));
            }
        }
        1 // the program itself is the first one; no further one is wanted
    }

    /// Takes whole pages of the program out of this process's memory until they are used.
    pub(super) fn unmap_pages(start: usize, length: usize) {
        #[expect(unsafe_code, reason = "the C library has no other way to be told")]
        // SAFETY: these are pages of a file that nobody writes to, so that the system reads the
        // same bytes again wherever they are needed. A refusal costs memory only.
        let _ = unsafe { libc::madvise(start as *mut c_void, length, libc::MADV_DONTNEED) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rests_some_time_after_the_last_attempt_and_goes_on_afterwards() {
        let mut rest = Rest::new();
        rest.due = Instant::now();
        rest.turn(true);
        assert!(rest.left() > CALM / 2 && rest.left() <= CALM);
        rest.turn(false);
        assert!(rest.left() <= CALM);
        rest.due = Instant::now();
        rest.turn(false);
        assert!(rest.left() > CALM);
    }

    /// Resident bytes of the mappings that begin at `starts`.
    #[cfg(target_os = "linux")]
    fn resident(starts: &[usize]) -> usize {
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let (mut counts, mut sum) = (false, 0);
        for line in maps.lines() {
            let (first, rest) = line.split_once(' ').unwrap();
            if let Some((from, to)) = first.split_once('-') {
                let [from, to] = [from, to].map(|text| usize::from_str_radix(text, 16).unwrap());
                counts = starts.iter().any(|start| (from..to).contains(start));
            } else if counts && first == "Rss:" {
                let kib: usize = rest.trim().trim_end_matches(" kB").parse().unwrap();
                sum += kib * 1024;
            }
        }
        sum
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn pages_of_the_program_go_and_come_back_as_they_were() {
        use std::os::unix::fs::FileExt;
        let segments = program::unwritable();
        let starts: Vec<usize> = segments.iter().map(|(start, _)| *start).collect();
        let own = std::fs::File::open("/proc/self/mem").unwrap();
        let read = |(start, length): &(usize, usize)| {
            let mut bytes = vec![0; *length];
            own.read_exact_at(&mut bytes, *start as u64).unwrap();
            bytes
        };
        let before: Vec<_> = segments.iter().map(read).collect();
        let all: usize = segments.iter().map(|(_, length)| length).sum();
        assert!(all > 1 << 20 && resident(&starts) > all / 10 * 9);
        give_back();
        assert!(resident(&starts) < all / 2);
        assert_eq!(segments.iter().map(read).collect::<Vec<_>>(), before);
    }
}
