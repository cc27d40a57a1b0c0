//! What tokens are good for: producing, reading, both; from the client, from a sidecar and from the audit.

use super::{bearer, block_on, end_without_secrets, produce, read, reason, with_tokens, write_private};
use crate::support::binaries::command;
use crate::support::{Sidecar, wait_for};
use highwater_proto::CloseReason::Unauthorized;

const TOKENS: &str = "s3cret-both\nname=web scopes=produce s3cret-produce\nname=board scopes=read s3cret-read\n";
const SECRETS: [&str; 2] = ["s3cret", "733363726574"];

#[test]
fn a_token_is_good_for_its_scopes_and_for_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let (engine, _) = with_tokens(folder.path(), TOKENS);
    for (token, produces, reads) in [
        ("s3cret-both", true, true),
        ("s3cret-produce", true, false),
        ("s3cret-read", false, true),
        ("s3cret-none", false, false),
        ("", false, false),
    ] {
        let produced = block_on(produce(bearer(&engine, token)));
        let read = block_on(read(bearer(&engine, token)));
        if produces {
            produced.unwrap();
        } else {
            assert_eq!(reason(produced), Unauthorized, "{token}");
        }
        for outcome in read {
            if reads {
                outcome.unwrap();
            } else {
                assert_eq!(reason(outcome), Unauthorized, "{token}");
            }
        }
    }
    // Hellos of three clients, and four questions of three others.
    wait_for("the count of what was refused", || {
        let page = engine.ask("/metrics").body;
        page.contains("highwater_sessions_closed_total{reason=\"unauthorized\"} 15\n").then_some(())
    });
    let line = engine.log_line("refused a client");
    assert!(line.contains("peer=127.0.0.1:"), "{line}");
    assert!(engine.log_line("a producer says hello").contains("producer="));
    end_without_secrets(engine, &SECRETS);
}

#[test]
fn a_sidecar_and_an_audit_show_their_token() {
    let folder = tempfile::tempdir().unwrap();
    let (engine, _) = with_tokens(folder.path(), TOKENS);
    block_on(produce(bearer(&engine, "s3cret-produce"))).unwrap();
    let file = folder.path().join("board-token");
    write_private(&file, "name=board scopes=read s3cret-read\n");
    let flag = format!("--token-file={}", file.display());
    let good = Sidecar::start(&engine, &[&flag]);
    let bad = Sidecar::start(&engine, &[]);
    wait_for("readiness", || (good.ask("/readyz").status == 200).then_some(()));
    let counts = good.ask("/v1/videos/views?video_id=v");
    assert_eq!(counts.status, 200, "{counts:?}");
    let said = wait_for("what is wrong", || {
        let answer = bad.ask("/readyz");
        (answer.status == 503 && answer.body.contains("unauthorized")).then_some(answer.body)
    });
    assert!(said.contains("no token"), "{said}");
    for (more, code) in [(&[&*flag][..], 0), (&[], 1)] {
        let mut audit = command("highwater");
        audit.arg("audit").arg(format!("--data-dir={}", folder.path().join("data").display()));
        audit.arg(format!("--engine={}", engine.address())).arg(format!("--ca={}", engine.ca())).args(more);
        let done = audit.output().unwrap();
        assert_eq!(done.status.code(), Some(code), "{}", String::from_utf8_lossy(&done.stderr));
    }
    end_without_secrets(engine, &SECRETS);
}
