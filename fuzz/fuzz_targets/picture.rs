//! Any bytes are a picture of as many pixels as the model takes, or are refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use multiway_model::ImageProcessor;
use multiway_model::testing::tiny_config;

fuzz_target!(|data: &[u8]| {
    // A decoder's panic is that picture's error, and no finding; the hook that comes with the fuzzer would
    // end the program.
    std::panic::set_hook(Box::new(|_| {}));
    let config = tiny_config();
    let processor = ImageProcessor::new(&config).with_limits(1 << 20, 1 << 20);
    if let Ok(picture) = processor.process(data) {
        assert_eq!(picture.pixels().len(), config.image_values());
        assert!(picture.pixels().iter().all(|x| x.is_finite()));
    }
});
