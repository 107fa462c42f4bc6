//! Pictures of requests: data URLs.

use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use multiway::ImageProcessor;
use multiway::checkpoint::ModelConfig;
use multiway::image::ProcessedImage;

use crate::error::ApiError;

/// Padding is left out by some clients.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Decodes the bytes of a data URL, or of plain base64.
pub(crate) fn decode(url: &str, param: &str) -> Result<Vec<u8>, ApiError> {
    let encoded = match url.split_once(':') {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("data") => {
            let (kind, data) = rest
                .split_once(',')
                .ok_or_else(|| expected(param, "a data URL without a comma"))?;
            if !kind.to_ascii_lowercase().ends_with(";base64") {
                return Err(expected(param, "a data URL that is not in base64"));
            }
            data
        }
        Some((scheme, _)) if scheme.len() < 12 => {
            let found = format!("a URL of the scheme '{scheme}'; this server fetches nothing");
            return Err(expected(param, &found));
        }
        _ => url,
    };
    BASE64
        .decode(encoded.trim())
        .map_err(|error| expected(param, &format!("base64 that cannot be read: {error}")))
}

fn expected(param: &str, found: &str) -> ApiError {
    ApiError::field(
        param,
        format!("{param}: expected a picture as `data:image/png;base64,...`, found {found}"),
    )
}

/// Refuses more pictures than the model reads, before they are decoded.
pub(crate) fn check_count(count: usize, config: &ModelConfig, param: &str) -> Result<(), ApiError> {
    let most = config.max_images();
    if count <= most {
        return Ok(());
    }
    Err(ApiError::field(
        param,
        format!("{param}: the model reads at most {most} pictures, found {count}"),
    ))
}

/// Decodes and prepares a picture, beside the threads that serve.
pub(crate) async fn open(
    processor: ImageProcessor,
    bytes: Vec<u8>,
    param: &str,
) -> Result<ProcessedImage, ApiError> {
    let opened = tokio::task::spawn_blocking(move || processor.process(&bytes)).await;
    let opened = opened.map_err(|error| ApiError::internal(error.to_string()))?;
    opened.map_err(|error| ApiError::field(param, format!("{param}: {error}")))
}

/// Writes bytes as base64.
pub(crate) fn encode(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}
