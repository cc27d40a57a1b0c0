//! The fuzzer of `replay_csv`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    highwater_fuzz_targets::run("replay_csv", data);
});
