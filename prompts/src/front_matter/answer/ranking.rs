//! Options that are one of several names, and how ranked answers are compared.

use serde_saphyr::Spanned;

use super::raw::RawCalibration;
use crate::front_matter::problem::Problem;
use crate::output::{Calibration, Normalization, Ranking};
use crate::suggest::{did_you_mean, listing, nearest, quoted};

/// Finds the value of an option that is one of several names; the default if it is not given.
pub(super) fn one_of<T: Copy + Default>(
    option: Option<Spanned<String>>,
    key: &str,
    known: &[(&'static str, T)],
) -> Result<T, Problem> {
    let Some(option) = option else {
        return Ok(T::default());
    };
    if let Some((_, value)) = known.iter().find(|(name, _)| *name == option.value) {
        return Ok(*value);
    }
    let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
    let suggestion = nearest(&option.value, names.iter().copied());
    let message = format!(
        "expected one of {}, found {}{}",
        listing(&names),
        quoted(&option.value),
        did_you_mean(suggestion.as_ref())
    );
    Err(Problem::new(&option, key, message))
}

pub(super) fn ranking(
    normalization: Option<Spanned<String>>,
    calibration: Option<Spanned<RawCalibration>>,
) -> Result<Ranking, Problem> {
    const NORMALIZATIONS: [(&str, Normalization); 4] = [
        ("none", Normalization::None),
        ("tokens", Normalization::Tokens),
        ("characters", Normalization::Characters),
        ("unconditional", Normalization::Unconditional),
    ];
    let normalization = one_of(normalization, "output.normalization", &NORMALIZATIONS)?;
    let Some(calibration) = calibration else {
        return Ok(Ranking {
            normalization,
            calibration: None,
        });
    };
    let temperature = calibration.value.temperature;
    if !(temperature.value.is_finite() && temperature.value > 0.0) {
        let message = format!("expected a number above 0, found {}", temperature.value);
        return Err(Problem::new(
            &temperature,
            "output.calibration.temperature",
            message,
        ));
    }
    let calibration = Some(Calibration {
        temperature: temperature.value,
    });
    Ok(Ranking {
        normalization,
        calibration,
    })
}
