//! The fuzzer of `history`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    highwater_fuzz_targets::run("history", data);
});
