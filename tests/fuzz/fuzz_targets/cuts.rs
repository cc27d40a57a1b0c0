//! The fuzzer of `cuts`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    highwater_fuzz_targets::run("cuts", data);
});
