//! Producers belong to the identity that made them, over kills, restarts and cut files, and when rules change.

use super::{bearer, block_on, produce, produce_again, reason, write_private};
use crate::support::authority::Authority;
use crate::support::{Engine, Setup};
use highwater_client::ClientConfig;
use highwater_proto::CloseReason::NotOwner;

const TOKENS: &str = "name=web s3cret-web\nname=web s3cret-web-next\nname=app s3cret-app\ns3cret-nameless\n";

#[test]
fn a_producer_stays_its_makers_after_a_kill_and_after_a_cut() {
    let folder = tempfile::tempdir().unwrap();
    let (mut engine, _) = super::with_tokens(folder.path(), TOKENS);
    let webs = block_on(produce(bearer(&engine, "s3cret-web"))).unwrap();
    let nobodys = block_on(produce(bearer(&engine, "s3cret-nameless"))).unwrap();
    let check = |engine: &Engine| {
        for theirs in ["s3cret-app", "s3cret-nameless"] {
            let said = block_on(produce_again(bearer(engine, theirs), webs)).unwrap_err().to_string();
            assert!(said.contains("not_owner") && said.contains("another identity"), "{said}");
        }
        for ours in ["s3cret-web", "s3cret-web-next"] {
            block_on(produce_again(bearer(engine, ours), webs)).unwrap();
        }
        block_on(produce_again(bearer(engine, "s3cret-app"), nobodys)).unwrap();
    };
    check(&engine);
    let line = engine.log_line("refused a client");
    assert!(line.contains("was made under another identity") && line.contains("token=\"app\""), "{line}");
    let setup = engine.same_place();
    engine.kill();
    engine = setup.start();
    check(&engine);
    // A shutdown writes a cut file, with the table of producers in it.
    assert_eq!(engine.terminate().code, Some(0));
    engine = setup.start();
    check(&engine);
    engine.kill();
    // Without tokens nobody has a name, and owners are not looked at.
    engine = Setup { more: Vec::new(), ..setup.clone() }.start();
    block_on(produce_again(engine.client(), webs)).unwrap();
    let free = block_on(produce(engine.client())).unwrap();
    assert_eq!(engine.terminate().code, Some(0));
    engine = setup.start();
    assert_eq!(reason(block_on(produce_again(bearer(&engine, "s3cret-app"), webs))), NotOwner);
    block_on(produce_again(bearer(&engine, "s3cret-app"), free)).unwrap();
    super::end_without_secrets(engine, &["s3cret"]);
}

#[test]
fn a_certificate_and_a_token_of_one_name_are_one_owner() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "clients");
    let [web, app] = ["web", "app"].map(|name| Some(authority.client(name).client_certificate()));
    let tokens = folder.path().join("tokens");
    write_private(&tokens, TOKENS);
    let client_ca = format!("--client-ca={}", authority.ca.display());
    let setup = Setup { more: vec![client_ca.clone()], ..Setup::new(&folder.path().join("data")) };
    let engine = setup.start();
    let with =
        |engine: &Engine, certificate, token| ClientConfig { client_certificate: certificate, ..bearer(engine, token) };
    let webs = block_on(produce(with(&engine, web.clone(), ""))).unwrap();
    assert_eq!(reason(block_on(produce_again(with(&engine, app.clone(), ""), webs))), NotOwner);
    block_on(produce_again(with(&engine, web.clone(), ""), webs)).unwrap();
    engine.kill();
    let both = vec![client_ca, format!("--token-file={}", tokens.display())];
    let engine = Setup { more: both, ..setup }.start();
    // The token's name goes before the certificate's; one without a name leaves that in force.
    block_on(produce_again(with(&engine, app.clone(), "s3cret-web"), webs)).unwrap();
    block_on(produce_again(with(&engine, web.clone(), "s3cret-nameless"), webs)).unwrap();
    for (certificate, token) in [(web, "s3cret-app"), (app, "s3cret-nameless")] {
        assert_eq!(reason(block_on(produce_again(with(&engine, certificate, token), webs))), NotOwner);
    }
    super::end_without_secrets(engine, &["s3cret"]);
}
