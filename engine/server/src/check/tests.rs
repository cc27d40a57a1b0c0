//! The report in both forms, and keys that are as they should be, readable by others, damaged or gone.

use super::keys;
use super::report::Report;
use crate::tls;
use highwater_ranking::Calendar;
use highwater_storage::{CheckReport, Directory, DirectoryId, Disk, MemoryDisk, OpenOptions, Store};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

fn new_directory() -> MemoryDisk {
    let disk = MemoryDisk::new();
    let directory = Directory {
        id: DirectoryId(9),
        instance: highwater_proto::InstanceId(5),
        hash_seed: 77,
        shards: 3,
        lateness_max_ms: 120_000,
        segment_bytes: 4 << 20,
    };
    Store::open(disk.clone(), OpenOptions::new(directory)).unwrap();
    disk
}

fn stored(disk: &MemoryDisk) -> CheckReport {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    highwater_storage::check(&disk, Calendar::default())
}

fn report(data_dir: &Path, disk: &MemoryDisk) -> Report {
    let mut stored = stored(disk);
    let keys = keys::check(data_dir, &mut stored);
    Report::new(data_dir, &stored, keys)
}

#[test]
fn both_forms_say_the_same() {
    let disk = new_directory();
    let nowhere = Path::new("/nowhere");
    let sound = report(nowhere, &disk);
    assert_eq!(sound.damage_total(), 0);
    assert!(sound.text().ends_with("sound: 0 damaged, 0 notes\n"), "{}", sound.text());
    let json: serde_json::Value = serde_json::from_str(&sound.json()).unwrap();
    assert_eq!((&json["sound"], &json["data_dir"]), (&true.into(), &"/nowhere".into()));
    assert_eq!(json["kinds"].as_array().unwrap().len(), 11, "{json}");
    disk.flip_bit("state.hw", 30, 1);
    let damaged = report(nowhere, &disk);
    let text = damaged.text();
    assert!(text.contains("\ndamage state state.hw at byte "), "{text}");
    assert!(text.contains("checksum") && text.contains("; this is damage and not a torn write: restore"), "{text}");
    assert!(text.contains("\nnot sound: 1 damaged, "), "{text}");
    let json: serde_json::Value = serde_json::from_str(&damaged.json()).unwrap();
    let found = &json["damage"][0];
    assert_eq!((&json["sound"], &json["damage_total"]), (&false.into(), &1.into()));
    assert_eq!((&found["kind"], &found["file"]), (&"state".into(), &"state.hw".into()));
    assert!(found["offset"].is_u64() && found["remedy"].as_str().unwrap().contains("backup"), "{json}");
}

#[test]
fn keys_are_read_and_kept_from_others() {
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("tls");
    tls::prepare(&directory, &[], None, None, SystemTime::now()).unwrap();
    let disk = new_directory();
    let sound = report(place.path(), &disk);
    assert_eq!(sound.damage_total(), 0, "{}", sound.text());
    assert!(sound.text().ends_with("sound: 0 damaged, 0 notes\n"), "{}", sound.text());

    fs::set_permissions(directory.join("key.pem"), Permissions::from_mode(0o644)).unwrap();
    fs::write(directory.join("notes.txt"), "mine").unwrap();
    fs::write(directory.join("cert.pem.tmp"), "half").unwrap();
    fs::remove_file(directory.join("ca-key.pem")).unwrap();
    let noted = report(place.path(), &disk);
    let text = noted.text();
    assert_eq!(noted.damage_total(), 0, "{text}");
    for words in ["tls/key.pem is a secret", "mode 644", "chmod 600", "tls/notes.txt is none", "cert.pem.tmp", "ca-key"]
    {
        assert!(text.contains(words), "{words}: {text}");
    }

    fs::write(directory.join("cert.pem"), "no certificate").unwrap();
    fs::write(directory.join("reset.key"), "short").unwrap();
    let damaged = report(place.path(), &disk);
    let text = damaged.text();
    assert_eq!(damaged.damage_total(), 2, "{text}");
    assert!(text.contains("damage tls tls/cert.pem: ") && text.contains("holds no certificate"), "{text}");
    assert!(text.contains("tls/reset.key: ") && text.contains("5 bytes, not 32; remove it"), "{text}");
}
