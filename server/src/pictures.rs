//! Pictures of requests: data URLs, and URLs of hosts that the operator names.

use std::num::NonZero;
use std::sync::{Arc, LazyLock};
use std::thread::available_parallelism;

use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use multiway::ImageProcessor;
use multiway::checkpoint::ModelConfig;
use multiway::image::ProcessedImage;
use tokio::sync::Semaphore;

use crate::error::ApiError;
use crate::fetch::Fetcher;

/// Padding is left out by some clients.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A picture as a request gives it.
#[derive(Debug)]
pub(crate) struct Given {
    source: Source,
    /// The field that gives it.
    param: String,
}

#[derive(Debug)]
enum Source {
    Bytes(Vec<u8>),
    /// By HTTP; fetched when it is opened.
    Url(String),
}

/// Reads a data URL, plain base64, or where a picture is.
pub(crate) fn read(url: &str, param: impl Into<String>) -> Result<Given, ApiError> {
    let param = param.into();
    let scheme = url.split_once(':').map(|(scheme, _)| scheme.to_ascii_lowercase());
    let source = match scheme.as_deref() {
        Some("http" | "https") => Source::Url(url.to_owned()),
        _ => Source::Bytes(decode(url, &param)?),
    };
    Ok(Given { source, param })
}

/// Decodes the bytes of a data URL, or of plain base64.
fn decode(url: &str, param: &str) -> Result<Vec<u8>, ApiError> {
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
            let found = format!("a URL of the scheme '{scheme}'");
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

/// Fetches, decodes and prepares a picture, beside the threads that serve. As many are decoded at a time as
/// there are cores: a small file may hold many pixels.
pub(crate) async fn open(
    processor: ImageProcessor,
    given: Given,
    fetcher: &Arc<Fetcher>,
) -> Result<ProcessedImage, ApiError> {
    static DECODING: LazyLock<Semaphore> =
        LazyLock::new(|| Semaphore::new(available_parallelism().map_or(1, NonZero::get)));
    let Given { source, param } = given;
    let bytes = match source {
        Source::Bytes(bytes) => bytes,
        Source::Url(url) => {
            let (fetcher, param) = (Arc::clone(fetcher), param.clone());
            beside(move || fetcher.fetch(&url, &param)).await?
        }
    };
    let _place = DECODING.acquire().await;
    beside(move || {
        let opened = processor.process(&bytes);
        opened.map_err(|error| ApiError::field(&param, format!("{param}: {error}")))
    })
    .await
}

/// Does work that keeps a thread busy.
async fn beside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| ApiError::internal(error.to_string()))?
}

/// Writes bytes as base64.
pub(crate) fn encode(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}
