//! The tokens that producers must send, where the operator asks for them: read from a file, compared in a hello.
//!
//! What it is not: a guard of readers, who need none, or a secret against who reads the wire, which is TLS's work.
//! Only SHA-256 digests are kept, so comparing takes the same time whatever a token has in common with the right one
//! and however long that is: the hash depends on what was sent alone, and then each digest of 32 bytes is compared
//! whole, all of them also after one that fits. Invariant: no token is ever shown, neither in a log nor in an error.

use ring::digest::{SHA256, digest};
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use subtle::{Choice, ConstantTimeEq};

use highwater_proto::TOKEN_BYTES_MAX;

/// Most tokens of a file: enough to give each user a new one before the old one goes.
const TOKENS_MAX: usize = 64;

/// A larger file is not one of tokens; there is room for every token and as much remark again.
const FILE_BYTES_MAX: usize = 2 * TOKENS_MAX * (TOKEN_BYTES_MAX + 1);

/// Who may read or write the file besides its owner.
const OTHERS_RIGHTS: u32 = 0o066;

const DIGEST_BYTES: usize = 32;

/// The tokens of an engine that asks for one.
#[derive(Clone)]
pub struct Tokens {
    digests: Vec<[u8; DIGEST_BYTES]>,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("count", &self.digests.len()).finish_non_exhaustive()
    }
}

/// Why a file of tokens cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    /// It cannot be read.
    #[error(
        "cannot read the token file {}: {source}; check --token-file, or leave it out to let any producer send",
        path.display()
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// It holds too much.
    #[error(
        "the token file {} has more than {FILE_BYTES_MAX} bytes: give a text file with one token a line",
        path.display()
    )]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// It holds nothing but blank lines and remarks.
    #[error(
        "the token file {} holds no token: write 1 to {TOKENS_MAX}, one a line (lines that begin with # are remarks), or leave \
         --token-file out to let any producer send",
        path.display()
    )]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// A line is not text.
    #[error(
        "the token file {}, line {line}: a token is UTF-8 without control characters or white space at its ends; save the file as plain text",
        path.display()
    )]
    NotText {
        /// The file.
        path: PathBuf,
        /// Number of the line, from 1.
        line: usize,
    },
    /// A line is too long.
    #[error(
        "the token file {}, line {line}: the token has {bytes} bytes, allowed are 1 to {TOKEN_BYTES_MAX}; use a shorter one",
        path.display()
    )]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Number of the line, from 1.
        line: usize,
        /// Bytes of the token.
        bytes: usize,
    },
    /// There are too many.
    #[error(
        "the token file {}, line {line}: this is token {}, allowed are 1 to {TOKENS_MAX}; remove those no longer in use",
        path.display(),
        TOKENS_MAX + 1
    )]
    TooMany {
        /// The file.
        path: PathBuf,
        /// Number of the line with the first one too many, from 1.
        line: usize,
    },
}

impl Tokens {
    /// Reads a file: a token on each line, without the white space around it; blank lines and those that begin with
    /// `#` are skipped. Warns when others than its owner may read it.
    ///
    /// # Errors
    /// [`TokenFileError`]: file, line, what is allowed and what to do; never the token.
    pub fn read(path: &Path) -> Result<Self, TokenFileError> {
        let unreadable = |source| TokenFileError::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(unreadable)?;
        let mode = file.metadata().map_err(unreadable)?.permissions().mode() & 0o777;
        let mut bytes = Vec::new();
        file.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        if bytes.len() > FILE_BYTES_MAX {
            return Err(TokenFileError::TooLarge { path: path.to_owned() });
        }
        let tokens = Self::parse(path, &bytes)?;
        if mode & OTHERS_RIGHTS != 0 {
            tracing::warn!(
                path = %path.display(),
                mode = format_args!("{mode:03o}"),
                "other users of this machine can read or change the token file; run `chmod 600` on it"
            );
        }
        Ok(tokens)
    }

    fn parse(path: &Path, bytes: &[u8]) -> Result<Self, TokenFileError> {
        let mut digests = Vec::new();
        for (line, token) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
            let token = token.trim_ascii();
            if token.is_empty() || token.starts_with(b"#") {
                continue;
            }
            let path = || path.to_owned();
            if token.len() > TOKEN_BYTES_MAX {
                return Err(TokenFileError::TooLong { path: path(), line, bytes: token.len() });
            }
            // A byte order mark, or white space that is not ASCII, would become part of a token unseen.
            let is_text =
                |text: &str| text.trim() == text && !text.contains(|one: char| one.is_control() || one == '\u{feff}');
            if !std::str::from_utf8(token).is_ok_and(is_text) {
                return Err(TokenFileError::NotText { path: path(), line });
            }
            if digests.len() == TOKENS_MAX {
                return Err(TokenFileError::TooMany { path: path(), line });
            }
            digests.push(digest_of(token));
        }
        if digests.is_empty() {
            return Err(TokenFileError::Empty { path: path.to_owned() });
        }
        Ok(Self { digests })
    }

    /// How many there are; at least one.
    pub fn count(&self) -> usize {
        self.digests.len()
    }

    /// Whether a producer with this token may send.
    pub fn admit(&self, token: &[u8]) -> bool {
        let sent = digest_of(token);
        let fits = |found: Choice, one: &[u8; DIGEST_BYTES]| found | one.ct_eq(&sent);
        self.digests.iter().fold(Choice::from(0), fits).into()
    }
}

fn digest_of(token: &[u8]) -> [u8; DIGEST_BYTES] {
    let mut bytes = [0; DIGEST_BYTES];
    bytes.copy_from_slice(digest(&SHA256, token).as_ref());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: impl AsRef<[u8]>) -> Result<Tokens, TokenFileError> {
        Tokens::parse(Path::new("tokens"), text.as_ref())
    }

    #[test]
    fn every_token_of_the_file_is_admitted_and_nothing_else() {
        let tokens = parse("# in use since March\n\n  first one \r\nsecond\n").unwrap();
        assert_eq!(tokens.count(), 2);
        for good in ["first one", "second"] {
            assert!(tokens.admit(good.as_bytes()), "{good}");
        }
        for bad in ["", "first", "first one ", "Second", "secon", "secondd", "# in use since March"] {
            assert!(!tokens.admit(bad.as_bytes()), "{bad}");
        }
    }

    #[test]
    fn the_longest_token_and_the_most_tokens_are_allowed_and_one_more_is_not() {
        let longest = "x".repeat(TOKEN_BYTES_MAX);
        assert!(parse(&longest).unwrap().admit(longest.as_bytes()));
        let error = parse(format!("\n{longest}y")).unwrap_err();
        assert!(matches!(error, TokenFileError::TooLong { line: 2, bytes: 1025, .. }), "{error}");
        let most: Vec<String> = (0..TOKENS_MAX).map(|index| format!("token{index}")).collect();
        assert_eq!(parse(most.join("\n")).unwrap().count(), TOKENS_MAX);
        let error = parse(format!("{}\none more", most.join("\n"))).unwrap_err();
        assert!(matches!(error, TokenFileError::TooMany { line: 65, .. }), "{error}");
    }

    #[test]
    fn what_is_no_token_file_is_refused_by_line_and_never_shown() {
        assert!(matches!(parse(" \n# nothing\n").unwrap_err(), TokenFileError::Empty { .. }));
        let not_text: [&[u8]; 4] =
            ["good\ns3cret\u{a0}".as_bytes(), b"good\ns3\x00cret", b"good\ns3cret\xff", "\n\u{feff}s3cret".as_bytes()];
        for bytes in not_text {
            let error = parse(bytes).unwrap_err();
            assert!(matches!(error, TokenFileError::NotText { line: 2, .. }), "{error}");
            assert!(!format!("{error} {error:?}").contains("s3"), "{error:?}");
        }
        assert!(!format!("{:?}", parse("s3cret").unwrap()).contains("s3"));
    }
}
