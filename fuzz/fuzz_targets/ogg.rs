#![no_main]

libfuzzer_sys::fuzz_target!(init: targets::let_decoders_panic(), |data: &[u8]| targets::ogg(data));
