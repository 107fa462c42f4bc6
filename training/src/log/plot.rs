//! The picture of a log: a panel for each column, each value as it was and smoothed.

use std::fmt::Display;
use std::fs;
use std::ops::Range;
use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;

use super::{LogError, parse_step};

const PANEL: (u32, u32) = (520, 260);
/// The smoothed curve is an average whose weights fall by this share of the log's length.
const SMOOTHING_SHARE: f64 = 0.02;

/// The points of one column.
struct Curve {
    name: String,
    points: Vec<(f64, f64)>,
}

/// Draws every column of a [`LossLog`](super::LossLog) as an SVG picture, two panels a row.
///
/// # Errors
///
/// Fails where the log is missing, has no row, or a row is not numbers, or the picture cannot be written.
pub fn plot_losses(csv: &Path, svg: &Path) -> Result<(), LogError> {
    let curves = read_curves(csv)?;
    let columns = 2_usize.min(curves.len());
    let rows = curves.len().div_ceil(columns.max(1));
    let side = |count: usize, panel: u32| u32::try_from(count).unwrap_or(u32::MAX).saturating_mul(panel);
    let area = SVGBackend::new(svg, (side(columns, PANEL.0), side(rows, PANEL.1))).into_drawing_area();
    let failed = |reason: String| LogError::Draw {
        path: svg.to_owned(),
        reason,
    };
    area.fill(&WHITE).map_err(|error| failed(error.to_string()))?;
    for (panel, curve) in area.split_evenly((rows, columns)).iter().zip(&curves) {
        draw_panel(panel, curve).map_err(|error| failed(error.to_string()))?;
    }
    area.present().map_err(|error| failed(error.to_string()))
}

fn draw_panel<'a>(
    area: &DrawingArea<SVGBackend<'a>, Shift>,
    curve: &Curve,
) -> Result<(), DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>> {
    let mut chart = ChartBuilder::on(area)
        .caption(&curve.name, ("sans-serif", 16))
        .margin(10)
        .x_label_area_size(28)
        .y_label_area_size(52)
        .build_cartesian_2d(range_of(curve, |point| point.0), range_of(curve, |point| point.1))?;
    chart
        .configure_mesh()
        .x_desc("step")
        .light_line_style(WHITE)
        .x_labels(6)
        .y_labels(6)
        .draw()?;
    chart.draw_series(LineSeries::new(
        curve.points.iter().copied(),
        RGBColor(180, 200, 230).stroke_width(1),
    ))?;
    chart.draw_series(LineSeries::new(
        smooth(&curve.points),
        RGBColor(20, 70, 150).stroke_width(2),
    ))?;
    Ok(())
}

/// Returns the range of one coordinate, a little wider, and never empty.
fn range_of(curve: &Curve, coordinate: impl Fn(&(f64, f64)) -> f64) -> Range<f64> {
    let values = || curve.points.iter().map(&coordinate);
    let (low, high) = values().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
        (low.min(value), high.max(value))
    });
    if low > high {
        return 0.0..1.0;
    }
    let margin = ((high - low) * 0.03).max(high.abs() * 1e-3).max(1e-9);
    low - margin..high + margin
}

fn smooth(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let step = 1.0 / (points.len() as f64 * SMOOTHING_SHARE).max(1.0);
    let (mut sum, mut weight) = (0.0, 0.0);
    let smoothed = points.iter().map(|&(x, y)| {
        sum += step * (y - sum);
        weight += step * (1.0 - weight);
        (x, sum / weight)
    });
    smoothed.collect()
}

fn read_curves(csv: &Path) -> Result<Vec<Curve>, LogError> {
    let text = fs::read_to_string(csv).map_err(LogError::file("read", csv))?;
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next().unwrap_or_default().split(',').collect();
    let mut curves: Vec<Curve> = names
        .iter()
        .skip(1)
        .map(|name| Curve {
            name: (*name).to_owned(),
            points: Vec::new(),
        })
        .collect();
    if names.first() != Some(&"step") || curves.is_empty() {
        return Err(row_error(
            csv,
            1,
            "'step' and the names of columns",
            names.join(","),
        ));
    }
    let mut rows = 0;
    for (index, row) in lines.enumerate() {
        read_row(csv, index + 2, row, &mut curves)?;
        rows += 1;
    }
    if rows == 0 {
        return Err(row_error(csv, 2, "at least one row", "the end of the file"));
    }
    Ok(curves)
}

#[expect(clippy::cast_precision_loss, reason = "steps are far below 2^53")]
fn read_row(csv: &Path, line: usize, row: &str, curves: &mut [Curve]) -> Result<(), LogError> {
    let step = parse_step(csv, line, row)? as f64;
    let values: Vec<&str> = row.split(',').skip(1).collect();
    if values.len() != curves.len() {
        return Err(row_error(
            csv,
            line,
            format!("{} values", curves.len()),
            values.len(),
        ));
    }
    for (curve, value) in curves
        .iter_mut()
        .zip(values)
        .filter(|(_, value)| !value.is_empty())
    {
        let number: f64 = value
            .parse()
            .map_err(|_| row_error(csv, line, "a number", value))?;
        if number.is_finite() {
            curve.points.push((step, number));
        }
    }
    Ok(())
}

fn row_error(csv: &Path, line: usize, expected: impl Into<String>, found: impl Display) -> LogError {
    LogError::Row {
        path: csv.to_owned(),
        line,
        expected: expected.into(),
        found: found.to_string(),
    }
}
