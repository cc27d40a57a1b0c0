//! Who may come in over QUIC, and who they are: tokens with scopes, client certificates, and what both say together.
//!
//! What it is not: the TLS handshake, which refuses a client without the right certificate before anything here is
//! asked, or the owners' table, which is the pipeline's. The rule: where certificates are asked for, every client has
//! shown one. Where tokens are asked for, the token says what its bearer may do; else everybody may do everything. The
//! name of a client is the token's, or, where that has none, the certificate's; the producers that it makes are its
//! own.

mod certificates;
mod refusals;
mod reload;
mod tokens;

pub use certificates::client_name;
pub use refusals::Refusals;
pub use reload::{ReloadFigures, Reloader, Rules, SourceError, Sources};
pub use tokens::{Grant, TokenFileError, Tokens};

use highwater_pipeline::Claim;
use highwater_proto::Scope;
use highwater_storage::OwnerId;
use ring::digest::{Context, SHA256};
use rustls::server::danger::ClientCertVerifier;
use std::fmt;
use std::sync::Arc;

/// What is digested before a name, so that the digest is one of nothing else.
const OWNER_DOMAIN: &[u8] = b"highwater producer owner 1\0";

/// What clients must show.
#[derive(Clone, Default)]
pub struct Access {
    /// Tokens, one of which each client must send; `None` where none is asked for.
    pub tokens: Option<Tokens>,
    /// What judges the clients' certificates; `None` where none is asked for.
    pub certificates: Option<Arc<dyn ClientCertVerifier>>,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access")
            .field("tokens", &self.tokens)
            .field("certificates", &self.certificates.is_some())
            .finish()
    }
}

impl Access {
    /// The grant of a token; `None` where tokens are not asked for. `what` bears the token, in the text of a refusal.
    ///
    /// # Errors
    /// What is said to a client whose token is missing or unknown.
    pub fn grant(&self, token: &[u8], what: &str) -> Result<Option<Arc<Grant>>, String> {
        let Some(tokens) = &self.tokens else { return Ok(None) };
        if let Some(grant) = tokens.admit(token) {
            return Ok(Some(grant));
        }
        Err(match token.len() {
            0 => format!("the {what} has no token, and this engine asks for one; ask its operator for it"),
            bytes => {
                format!("the {what}'s token of {bytes} bytes is none that this engine takes; ask its operator for one")
            }
        })
    }

    /// Whether a client with this grant may do so; `what` is what it wants to do.
    ///
    /// # Errors
    /// What is said to a client that has no token where one is asked for, or one that is good for something else.
    pub fn permit(&self, grant: Option<&Grant>, scope: Scope, what: &str) -> Result<(), String> {
        match grant {
            None => self.grant(&[], what).map(drop),
            Some(grant) if grant.scopes().contains(scope) => Ok(()),
            Some(grant) => {
                let whose = grant.name().map_or_else(String::new, |name| format!(" of {name}"));
                Err(format!(
                    "the token{whose} lacks the scope {scope}, which the {what} needs; ask the engine's operator for one that \
                     has it"
                ))
            }
        }
    }

    /// Whether what was granted before is granted still.
    pub fn still_permits(&self, grant: &Grant, scope: Scope) -> bool {
        let current = self.tokens.as_ref().and_then(|tokens| tokens.current(grant));
        current.is_some_and(|now| now.scopes().contains(scope))
    }

    /// What a client with this grant, and a certificate of this name, has a claim to.
    pub fn claim(&self, grant: Option<&Grant>, certificate: Option<&str>) -> Claim {
        if self.tokens.is_none() && self.certificates.is_none() {
            return Claim::Unasked;
        }
        match grant.and_then(Grant::name).or(certificate) {
            Some(name) => Claim::Owner(owner(name)),
            None => Claim::Nameless,
        }
    }
}

/// The owner that a name stands for: 128 bits of its SHA-256, which nobody finds another name for.
fn owner(name: &str) -> OwnerId {
    let mut context = Context::new(&SHA256);
    context.update(OWNER_DOMAIN);
    context.update(name.as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&context.finish().as_ref()[..16]);
    OwnerId(u128::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_tokens(text: &str) -> Access {
        Access { tokens: Some(Tokens::parse_text(text)), certificates: None }
    }

    #[test]
    fn without_tokens_everybody_may_do_everything() {
        let open = Access::default();
        assert!(open.grant(b"any", "hello").unwrap().is_none());
        assert_eq!(open.permit(None, Scope::Read, "LOOKUP"), Ok(()));
        assert_eq!(open.claim(None, Some("web")), Claim::Unasked);
    }

    #[test]
    fn a_token_is_good_for_its_scopes() {
        let access = of_tokens("name=web scopes=produce p\nscopes=read r\nboth");
        for (token, produce, read) in [(&b"p"[..], true, false), (b"r", false, true), (b"both", true, true)] {
            let grant = access.grant(token, "hello").unwrap().unwrap();
            assert_eq!(access.permit(Some(&grant), Scope::Produce, "hello").is_ok(), produce);
            assert_eq!(access.permit(Some(&grant), Scope::Read, "LOOKUP").is_ok(), read);
        }
        let refused = access.permit(None, Scope::Read, "LOOKUP").unwrap_err();
        assert!(refused.contains("the LOOKUP has no token"), "{refused}");
        let grant = access.grant(b"p", "hello").unwrap();
        let refused = access.permit(grant.as_deref(), Scope::Read, "LOOKUP").unwrap_err();
        assert!(refused.contains("the token of web lacks the scope read"), "{refused}");
    }

    #[test]
    fn what_is_taken_back_or_changed_is_permitted_no_more() {
        let grant = of_tokens("name=web p").grant(b"p", "hello").unwrap().unwrap();
        for (now, still) in [
            ("name=web p\nother", true),
            ("name=web scopes=produce p", true),
            ("name=web scopes=read p", false),
            ("name=other p", false),
            ("p", false),
            ("other", false),
        ] {
            assert_eq!(of_tokens(now).still_permits(&grant, Scope::Produce), still, "{now}");
        }
    }

    #[test]
    fn the_tokens_name_goes_before_the_certificates() {
        let access = of_tokens("name=web w\nplain");
        let named = access.grant(b"w", "hello").unwrap();
        let plain = access.grant(b"plain", "hello").unwrap();
        assert_eq!(access.claim(named.as_deref(), Some("host-7")), Claim::Owner(owner("web")));
        assert_eq!(access.claim(plain.as_deref(), Some("host-7")), Claim::Owner(owner("host-7")));
        assert_eq!(access.claim(plain.as_deref(), None), Claim::Nameless);
        assert_ne!(owner("web"), owner("host-7"));
    }
}
