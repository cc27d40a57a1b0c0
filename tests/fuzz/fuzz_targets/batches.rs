//! The fuzzer of `batches`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    highwater_fuzz_targets::run("batches", data);
});
