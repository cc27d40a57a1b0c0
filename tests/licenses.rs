//! What the binaries are made of: the licenses of all dependencies, as their packages state them.
//!
//! Invariant: nothing is built in whose license asks more of a user than to keep its text. What is known against a
//! version is not here, since that is in a database of others: `cargo deny --config .ci/deny.toml check` asks it.

use serde_json::Value;
use spdx::{Expression, LicenseReq, ParseMode};
use std::process::Command;

/// Licenses that ask for no more than their text; MPL-2.0 asks for the source of its own files, which is public.
const ALLOWED: [&str; 12] = [
    "0BSD",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MPL-2.0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

fn is_allowed(requirement: &LicenseReq) -> bool {
    requirement.license.id().is_some_and(|id| ALLOWED.contains(&id.name))
}

#[test]
fn every_dependency_has_a_license_that_asks_little() {
    let cargo = option_env!("CARGO").unwrap_or("cargo");
    let output = Command::new(cargo)
        .args(["metadata", "--format-version=1", "--locked"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    assert!(packages.len() > 100, "only {} packages were found", packages.len());
    let mut wrong = Vec::new();
    for package in packages {
        let (name, license) = (&package["name"], package["license"].as_str().unwrap_or("none"));
        let is_fine =
            Expression::parse_mode(license, ParseMode::LAX).is_ok_and(|expression| expression.evaluate(is_allowed));
        if !is_fine {
            wrong.push(format!("{name} {}: {license}", package["version"]));
        }
    }
    assert!(wrong.is_empty(), "licenses that are not allowed:\n{}", wrong.join("\n"));
    // The check can fail.
    let copyleft = Expression::parse_mode("GPL-3.0-only AND MIT", ParseMode::LAX).unwrap();
    assert!(!copyleft.evaluate(is_allowed));
}
