//! JSON that may be shown on a terminal: no character of a string moves the cursor, changes colours or turns text.
//!
//! What it is not: another format. JSON must escape U+0000 to U+001F only; here DEL, the C1 controls, the line and
//! paragraph separators and the characters that change the direction of text are escaped too. Invariant: every JSON
//! reader gets the same strings as without. Source: RFC 8259 section 7; Unicode Standard Annex 9, section 2.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::Formatter;

/// The value as one line of JSON.
pub(crate) fn to_vec<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(256);
    // Writing strings and numbers into memory cannot fail.
    let _ = value.serialize(&mut Serializer::with_formatter(&mut bytes, ShownSafely));
    bytes
}

/// Compact, with the characters of [`is_unsafe`] as `\uXXXX`.
struct ShownSafely;

impl Formatter for ShownSafely {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(is_unsafe) {
            let (safe, found) = rest.split_at(at);
            let character = found.chars().next().unwrap_or_default();
            write!(writer, "{safe}\\u{:04x}", u32::from(character))?;
            rest = &found[character.len_utf8()..];
        }
        writer.write_all(rest.as_bytes())
    }
}

/// Characters that do something to a terminal and that JSON may hold as they are; all are below U+10000.
fn is_unsafe(character: char) -> bool {
    let turns =
        matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    turns || matches!(character, '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moves_a_terminal_is_escaped_and_read_back_the_same() {
        let text = "a\u{1b}[2J\u{7f}\u{9b}2J\u{202e}x\u{2066}\u{2028}\"é視\u{200d}🎬\n";
        let json = String::from_utf8(to_vec(&[text])).unwrap();
        assert_eq!(serde_json::from_str::<[String; 1]>(&json).unwrap(), [text]);
        assert_eq!(
            json,
            r#"["a\u001b[2J\u007f\u009b2J\u202ex\u2066\u2028\"é視ZWJ🎬\n"]"#.replace("ZWJ", "\u{200d}"),
            "only what does harm is escaped"
        );
    }

    #[test]
    fn everything_else_is_as_serde_json_writes_it() {
        let value = serde_json::json!({"a": [1, null, true, "x"], "b": {"é": -1.5}, "c": "視"});
        assert_eq!(to_vec(&value), serde_json::to_vec(&value).unwrap());
    }
}
