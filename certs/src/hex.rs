//! Hexadecimal text of fixed-size values.

use std::fmt;

/// What is wrong with hexadecimal text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HexError {
    /// Wrong number of digits.
    #[error("{expected} hexadecimal digits are wanted, this has {found}")]
    Length {
        /// Digits wanted.
        expected: usize,
        /// Characters found.
        found: usize,
    },
    /// Not a digit.
    #[error("'{0}' is not a hexadecimal digit")]
    Digit(char),
}

pub(crate) fn write(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

pub(crate) fn text(bytes: &[u8]) -> String {
    struct Hex<'a>(&'a [u8]);
    impl fmt::Display for Hex<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write(f, self.0)
        }
    }
    Hex(bytes).to_string()
}

pub(crate) fn parse<const N: usize>(text: &str) -> Result<[u8; N], HexError> {
    let mut out = [0; N];
    let mut found = 0;
    for c in text.chars() {
        let digit = c.to_digit(16).ok_or(HexError::Digit(c))? as u8;
        if let Some(byte) = out.get_mut(found / 2) {
            *byte = *byte << 4 | digit;
        }
        found += 1;
    }
    if found == 2 * N {
        Ok(out)
    } else {
        Err(HexError::Length {
            expected: 2 * N,
            found,
        })
    }
}
