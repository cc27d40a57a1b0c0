//! Tokens: the frame that bears one before a question, and the line of a file that states one.
//!
//! What it is not: the comparison, which is the engine's, or the token of a hello, which is in it. Invariants: no debug
//! text shows a token; a line is read in the same way by the engine that asks for tokens and by a client that sends
//! one.

use crate::error::DecodeError;
use crate::frame::FrameKind;
use crate::limits::{IDENTITY_BYTES_MAX, TOKEN_BYTES_MAX};
use crate::wire::{Reader, in_range, put_frame};
use std::fmt;
use thiserror::Error;

/// The token under which the next frame of the stream comes: the first frame of a stream for questions or snapshots.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// The shared secret; 1 to 1024 bytes.
    pub token: Vec<u8>,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("token_bytes", &self.token.len()).finish()
    }
}

impl Token {
    /// Appends the whole frame to `out`.
    ///
    /// # Panics
    /// If the token is over its limit.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_frame(out, FrameKind::Token, |out| {
            out.extend_from_slice(&(self.token.len() as u32).to_le_bytes());
            out.extend_from_slice(&self.token);
        });
    }

    /// Reads the payload of a TOKEN frame.
    pub fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::of_frame(FrameKind::Token, payload)?;
        let token_bytes = reader.u32()?;
        in_range("token length", u64::from(token_bytes), 1, TOKEN_BYTES_MAX as u64)?;
        let token = reader.take(token_bytes as usize)?.to_vec();
        reader.finish()?;
        Ok(Self { token })
    }
}

/// What a token lets its bearer do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Send views.
    Produce,
    /// Look up, ask for the past, follow the rankings.
    Read,
}

impl Scope {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Produce, Self::Read];

    /// The scope's name in files, logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Produce => "produce",
            Self::Read => "read",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A set of scopes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Scopes {
    produce: bool,
    read: bool,
}

impl Scopes {
    /// Both.
    pub const ALL: Self = Self { produce: true, read: true };

    /// Whether it holds this one.
    pub const fn contains(self, scope: Scope) -> bool {
        match scope {
            Scope::Produce => self.produce,
            Scope::Read => self.read,
        }
    }

    /// The set that a list such as `produce,read` names; `None` for an unknown name or an empty one.
    pub fn parse(list: &str) -> Option<Self> {
        let mut scopes = Self::default();
        for name in list.split(',') {
            match Scope::ALL.into_iter().find(|scope| scope.as_str() == name)? {
                Scope::Produce => scopes.produce = true,
                Scope::Read => scopes.read = true,
            }
        }
        Some(scopes)
    }
}

/// A line of a token file: `TOKEN`, or attributes before it, as in `name=web scopes=produce,read TOKEN`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TokenLine<'a> {
    /// Who bears the token; `None` where the line does not say.
    pub name: Option<&'a str>,
    /// What it is good for; both where the line does not say.
    pub scopes: Scopes,
    /// The token itself, without white space at its ends.
    pub token: &'a str,
}

/// What is wrong with a line of a token file. The text shows nothing of what may be a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TokenLineError {
    /// Control characters, a byte order mark, or white space that is not ASCII at an end.
    #[error("a token is UTF-8 without control characters or white space at its ends; save the file as plain text")]
    NotText,
    /// The token is too long.
    #[error("the token has {bytes} bytes, allowed are 1 to {TOKEN_BYTES_MAX}; use a shorter one")]
    TooLong {
        /// Bytes of the token.
        bytes: usize,
    },
    /// There are attributes and nothing behind them.
    #[error("there is no token behind the attributes; write name=NAME scopes=produce,read TOKEN")]
    NoToken,
    /// A name that cannot be one.
    #[error(
        "the name has {bytes} bytes, allowed are 1 to {IDENTITY_BYTES_MAX} ASCII letters, digits and . _ - @ : /; use \
         another one"
    )]
    BadName {
        /// Bytes of the name.
        bytes: usize,
    },
    /// A list of scopes that cannot be one.
    #[error("the scopes are not a list of produce and read; write scopes=produce, scopes=read or scopes=produce,read")]
    BadScopes,
    /// An attribute twice, or one that is not known.
    #[error("an attribute before the token is unknown or comes twice; name= and scopes= may stand there, each once")]
    BadAttribute,
}

impl<'a> TokenLine<'a> {
    /// Reads a line; `None` where it is blank or a remark, which begins with `#`.
    ///
    /// What stands before white space and has the form `word=value` is an attribute.
    ///
    /// # Errors
    /// [`TokenLineError`]: what is wrong, what is allowed, what to do.
    pub fn parse(line: &'a str) -> Result<Option<Self>, TokenLineError> {
        let mut rest = line.trim_ascii();
        if rest.is_empty() || rest.starts_with('#') {
            return Ok(None);
        }
        let (mut name, mut scopes) = (None, None);
        while let Some((key, value, behind)) = attribute(rest) {
            match key {
                "name" if name.is_none() => name = Some(identity(value)?),
                "scopes" if scopes.is_none() => scopes = Some(Scopes::parse(value).ok_or(TokenLineError::BadScopes)?),
                _ => return Err(TokenLineError::BadAttribute),
            }
            rest = behind;
        }
        let is_attribute = |word: &str| word.starts_with("name=") || word.starts_with("scopes=");
        if rest.is_empty() || ((name.is_some() || scopes.is_some()) && is_attribute(rest)) {
            return Err(TokenLineError::NoToken);
        }
        // A byte order mark, or white space that is not ASCII, would become part of a token unseen.
        if rest.trim() != rest || rest.contains(|one: char| one.is_control() || one == '\u{feff}') {
            return Err(TokenLineError::NotText);
        }
        if rest.len() > TOKEN_BYTES_MAX {
            return Err(TokenLineError::TooLong { bytes: rest.len() });
        }
        Ok(Some(Self { name, scopes: scopes.unwrap_or(Scopes::ALL), token: rest }))
    }
}

/// The attribute that a line begins with, and what stands behind it.
fn attribute(line: &str) -> Option<(&str, &str, &str)> {
    let (word, behind) = line.split_once(|one: char| one.is_ascii_whitespace())?;
    let (key, value) = word.split_once('=')?;
    let is_word = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_lowercase());
    is_word.then(|| (key, value, behind.trim_ascii_start()))
}

fn identity(name: &str) -> Result<&str, TokenLineError> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-@:/".contains(&byte);
    if (1..=IDENTITY_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_allowed) {
        return Ok(name);
    }
    Err(TokenLineError::BadName { bytes: name.len() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<(Option<&str>, Scopes, &str), TokenLineError> {
        TokenLine::parse(line).map(|line| line.map(|line| (line.name, line.scopes, line.token)).unwrap())
    }

    #[test]
    fn a_line_is_a_token_with_or_without_attributes() {
        let read = Scopes::parse("read").unwrap();
        assert_eq!(parse("  first one \r"), Ok((None, Scopes::ALL, "first one")));
        assert_eq!(parse("a=b"), Ok((None, Scopes::ALL, "a=b")), "no white space behind it: a token");
        assert_eq!(parse("A=b c"), Ok((None, Scopes::ALL, "A=b c")));
        assert_eq!(parse("name=web scopes=produce,read x y"), Ok((Some("web"), Scopes::ALL, "x y")));
        assert_eq!(parse("scopes=read\tname=a/b x"), Ok((Some("a/b"), read, "x")));
        for nothing in ["", " \t", "# name=web x"] {
            assert!(TokenLine::parse(nothing).unwrap().is_none(), "{nothing:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_and_the_token_is_not() {
        let long = format!("name={} s3cret", "n".repeat(IDENTITY_BYTES_MAX + 1));
        for (line, expected) in [
            ("name= s3cret", TokenLineError::BadName { bytes: 0 }),
            ("name=a\u{e9} s3cret", TokenLineError::BadName { bytes: 3 }),
            (&*long, TokenLineError::BadName { bytes: IDENTITY_BYTES_MAX + 1 }),
            ("scopes=write s3cret", TokenLineError::BadScopes),
            ("scopes= s3cret", TokenLineError::BadScopes),
            ("scope=read s3cret", TokenLineError::BadAttribute),
            ("name=a name=b s3cret", TokenLineError::BadAttribute),
            ("name=a scopes=read", TokenLineError::NoToken),
            ("name=a s3\u{7}cret", TokenLineError::NotText),
            ("s3cret\u{a0}", TokenLineError::NotText),
        ] {
            let error = TokenLine::parse(line).err().unwrap();
            assert_eq!(error, expected, "{line}");
            assert!(!format!("{error} {error:?}").contains("s3"), "{error}");
        }
    }

    #[test]
    fn scopes_are_what_the_list_names() {
        let produce = Scopes::parse("produce").unwrap();
        assert!(produce.contains(Scope::Produce) && !produce.contains(Scope::Read));
        assert_eq!(Scopes::parse("read,produce,read"), Some(Scopes::ALL));
        for bad in ["", ",", "read,", "Read", "read, produce"] {
            assert_eq!(Scopes::parse(bad), None, "{bad:?}");
        }
    }
}
