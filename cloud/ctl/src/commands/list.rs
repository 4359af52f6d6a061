//! Shows a list of the API: as objects, as a table, or as a line that says that there is nothing.

use crate::client::Client;
use crate::exit::Failure;
use crate::output::Output;
use crate::table::{Cell, Table};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A list and how it is shown.
pub(super) struct List<'a, const N: usize> {
    pub(super) path: &'a str,
    pub(super) header: [&'a str; N],
    /// Said when nothing is in it.
    pub(super) none: &'a str,
}

impl<const N: usize> List<'_, N> {
    /// Prints it as it comes in, and gives how long it was.
    pub(super) fn print<T: Serialize + DeserializeOwned>(
        &self,
        client: &Client,
        out: &mut Output,
        row: impl Fn(&T) -> [Cell; N],
    ) -> Result<usize, Failure> {
        let mut table = Table::new(self.header, out.colour);
        let mut length = 0;
        client.list(self.path, |item: T| {
            length += 1;
            match out.json {
                true => out.object(&item)?,
                false => out.row(&mut table, row(&item))?,
            }
            Ok(true)
        })?;
        match (out.json, length) {
            (true, _) => {}
            (false, 0) => out.say(self.none),
            (false, _) => out.finish(table)?,
        }
        Ok(length)
    }
}
