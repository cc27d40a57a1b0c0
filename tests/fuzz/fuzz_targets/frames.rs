//! The fuzzer of `frames`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    highwater_fuzz_targets::run("frames", data);
});
