//! The tokens that clients must send, where the operator asks for them: read from a file, and found for what was sent.
//!
//! What it is not: a secret against who reads the wire, which is TLS's work. Only SHA-256 digests are kept, so to
//! compare takes the same time whatever a token has in common with the right one, and however long that is: the hash
//! depends on what was sent alone, and then each digest is compared whole, all of them also after one that fits.
//! Invariant: no token is ever shown, neither in a log nor in an error.

use ring::digest::{SHA256, digest};
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use highwater_proto::{IDENTITY_BYTES_MAX, Scopes, TOKEN_BYTES_MAX, TokenLine, TokenLineError};

/// Most tokens of a file: enough to give each user a new one before the old one goes.
const TOKENS_MAX: usize = 64;

/// A larger file is not one of tokens; there is room for every token, its attributes, and as much remark again.
const FILE_BYTES_MAX: usize = 2 * TOKENS_MAX * (TOKEN_BYTES_MAX + IDENTITY_BYTES_MAX + 33);

/// Who may read or write the file besides its owner.
const OTHERS_RIGHTS: u32 = 0o066;

const DIGEST_BYTES: usize = 32;

/// What a token is good for. The debug text shows neither the token nor its digest.
#[derive(PartialEq, Eq)]
pub struct Grant {
    digest: [u8; DIGEST_BYTES],
    name: Option<Box<str>>,
    scopes: Scopes,
}

impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grant").field("name", &self.name).field("scopes", &self.scopes).finish_non_exhaustive()
    }
}

impl Grant {
    /// Who bears the token; `None` where the file does not say.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// What its bearer may do.
    pub const fn scopes(&self) -> Scopes {
        self.scopes
    }
}

/// The tokens of an engine that asks for one.
#[derive(Clone)]
pub struct Tokens {
    grants: Vec<Arc<Grant>>,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("count", &self.grants.len()).finish_non_exhaustive()
    }
}

/// Why a file of tokens cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    /// It cannot be read.
    #[error(
        "cannot read the token file {}: {source}; check --token-file, or leave it out to let anybody in",
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
         --token-file out to let anybody in",
        path.display()
    )]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// A line is not what it should be.
    #[error("the token file {}, line {line}: {source}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Number of the line, from 1.
        line: usize,
        /// What is wrong with it.
        source: TokenLineError,
    },
    /// A token stands twice, with different names or scopes.
    #[error(
        "the token file {}, line {line}: the same token stands on line {first} with another name or other scopes; leave one of \
         the two",
        path.display()
    )]
    Contradiction {
        /// The file.
        path: PathBuf,
        /// Number of the line, from 1.
        line: usize,
        /// Number of the earlier line.
        first: usize,
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
        let mut grants: Vec<Arc<Grant>> = Vec::new();
        let mut lines = Vec::new();
        for (line, text) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
            let path = || path.to_owned();
            let told = |source| TokenFileError::Line { path: path(), line, source };
            let text = std::str::from_utf8(text).map_err(|_| told(TokenLineError::NotText))?;
            let Some(TokenLine { name, scopes, token }) = TokenLine::parse(text).map_err(told)? else { continue };
            if grants.len() == TOKENS_MAX {
                return Err(TokenFileError::TooMany { path: path(), line });
            }
            let grant = Grant { digest: digest_of(token.as_bytes()), name: name.map(Into::into), scopes };
            let same = grants.iter().zip(&lines).find(|(one, _)| one.digest == grant.digest);
            if let Some((_, first)) = same.filter(|(one, _)| ***one != grant) {
                return Err(TokenFileError::Contradiction { path: path(), line, first: *first });
            }
            grants.push(Arc::new(grant));
            lines.push(line);
        }
        if grants.is_empty() {
            return Err(TokenFileError::Empty { path: path.to_owned() });
        }
        Ok(Self { grants })
    }

    /// How many there are; at least one.
    pub fn count(&self) -> usize {
        self.grants.len()
    }

    /// What this token is good for; `None` when it is none of these.
    pub fn admit(&self, token: &[u8]) -> Option<Arc<Grant>> {
        let sent = digest_of(token);
        let mut found = Choice::from(0);
        let mut found_at = 0u32;
        for (index, grant) in (0u32..).zip(&self.grants) {
            let fits = grant.digest.ct_eq(&sent);
            found_at.conditional_assign(&index, fits);
            found |= fits;
        }
        bool::from(found).then(|| Arc::clone(&self.grants[found_at as usize]))
    }

    /// What the token of an earlier grant is good for now; `None` when it is here no more, or under another name.
    pub fn current(&self, grant: &Grant) -> Option<&Grant> {
        let same = |one: &&Arc<Grant>| bool::from(one.digest.ct_eq(&grant.digest)) && one.name == grant.name;
        self.grants.iter().find(same).map(Arc::as_ref)
    }

    #[cfg(test)]
    pub(super) fn parse_text(text: &str) -> Self {
        Self::parse(Path::new("tokens"), text.as_bytes()).unwrap()
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
            assert!(tokens.admit(good.as_bytes()).is_some(), "{good}");
        }
        for bad in ["", "first", "first one ", "Second", "secon", "secondd", "# in use since March"] {
            assert!(tokens.admit(bad.as_bytes()).is_none(), "{bad}");
        }
    }

    #[test]
    fn the_longest_token_and_the_most_tokens_are_allowed_and_one_more_is_not() {
        let longest = "x".repeat(TOKEN_BYTES_MAX);
        assert!(parse(&longest).unwrap().admit(longest.as_bytes()).is_some());
        let error = parse(format!("\n{longest}y")).unwrap_err();
        let source = TokenLineError::TooLong { bytes: 1025 };
        assert!(matches!(error, TokenFileError::Line { line: 2, source: found, .. } if found == source), "{error}");
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
            let source = TokenLineError::NotText;
            assert!(matches!(error, TokenFileError::Line { line: 2, source: found, .. } if found == source), "{error}");
            assert!(!format!("{error} {error:?}").contains("s3"), "{error:?}");
        }
        assert!(!format!("{:?}", parse("s3cret").unwrap()).contains("s3"));
    }
    #[test]
    fn a_token_is_found_with_its_name_and_scopes() {
        let tokens = parse("name=web scopes=produce one\ntwo\none more\nname=web scopes=read three").unwrap();
        let grant = tokens.admit(b"one").unwrap();
        assert_eq!((grant.name(), grant.scopes()), (Some("web"), Scopes::parse("produce").unwrap()));
        let grant = tokens.admit(b"three").unwrap();
        assert_eq!((grant.name(), grant.scopes()), (Some("web"), Scopes::parse("read").unwrap()));
        assert_eq!(tokens.admit(b"two").unwrap().scopes(), Scopes::ALL);
        assert!(tokens.admit(b"name=web scopes=produce one").is_none());
    }

    #[test]
    fn a_token_twice_means_the_same_twice() {
        assert_eq!(parse("one\none").unwrap().count(), 2);
        let error = parse("one\n#\nscopes=read one").unwrap_err();
        assert!(matches!(error, TokenFileError::Contradiction { line: 3, first: 1, .. }), "{error}");
    }
}
