//! Regular expressions for the numbers between two bounds.

/// The most digits of a number: as many as survive in 64-bit floating point.
pub(super) const MAX_DIGITS: usize = 15;
/// The most digits behind the point.
const MAX_FRACTION: usize = 6;
/// The most digits behind the point of a number between open bounds: one more than bounds have.
const MAX_SCALE: u32 = 7;
/// The number behind the largest one.
const LIMIT: i128 = 10_i128.pow(15);
/// The number behind the largest one with a fraction: all digits, less those behind the point.
const FRACTION_LIMIT: i128 = 10_i128.pow(9);

/// A number, exactly: `value / 10^scale`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Decimal {
    value: i64,
    scale: u32,
}

impl Decimal {
    /// Reads a number as JSON writes it; nothing where it has too many digits or an exponent.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let fraction = fraction.trim_end_matches('0');
        let digits = whole.trim_start_matches('-').len() + fraction.len();
        if digits > MAX_DIGITS || fraction.len() > MAX_FRACTION {
            return None;
        }
        Some(Self {
            value: format!("{whole}{fraction}").parse().ok()?,
            scale: u32::try_from(fraction.len()).ok()?,
        })
    }

    /// Counts in units of `10^-scale`, which must be at least as fine.
    fn at(self, scale: u32) -> i128 {
        i128::from(self.value) * 10_i128.pow(scale - self.scale)
    }
}

/// The bounds of a number; `None` where there is none.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bounds {
    pub(super) minimum: Option<Decimal>,
    pub(super) maximum: Option<Decimal>,
    pub(super) exclusive_minimum: Option<Decimal>,
    pub(super) exclusive_maximum: Option<Decimal>,
}

impl Bounds {
    fn all(&self) -> impl Iterator<Item = Decimal> {
        let all = [
            self.minimum,
            self.maximum,
            self.exclusive_minimum,
            self.exclusive_maximum,
        ];
        all.into_iter().flatten()
    }

    /// The smallest and largest number of units of `10^-scale`.
    fn units(&self, scale: u32, limit: i128) -> (i128, i128) {
        let unit = |bound: Option<Decimal>| bound.map(|bound| bound.at(scale));
        let lowest = [
            unit(self.minimum),
            unit(self.exclusive_minimum).map(|bound| bound + 1),
        ];
        let highest = [
            unit(self.maximum),
            unit(self.exclusive_maximum).map(|bound| bound - 1),
        ];
        (
            lowest.into_iter().flatten().max().unwrap_or(-limit).max(-limit),
            highest.into_iter().flatten().min().unwrap_or(limit).min(limit),
        )
    }
}

/// Makes an expression for the numbers between bounds, or nothing where there are none.
///
/// Whole bounds allow whole numbers and fractions of up to six digits; with other or exclusive bounds, all numbers have
/// as many digits behind the point as the finest bound, at least two; more where none lies between the bounds, and fewer
/// where there are too many in front of it.
pub(super) fn number(bounds: &Bounds, integer: bool) -> Option<String> {
    let exclusive = bounds.exclusive_minimum.is_some() || bounds.exclusive_maximum.is_some();
    let finest = bounds.all().map(|bound| bound.scale).max().unwrap_or(0);
    if integer {
        return whole(bounds, finest);
    }
    if finest == 0 && !exclusive {
        return general(bounds);
    }
    let usual = finest.max(2);
    let mut scales = (usual..=MAX_SCALE).chain((finest..usual).rev());
    scales.find_map(|scale| {
        let (lowest, highest) = bounds.units(scale, LIMIT - 1);
        signed(lowest, highest, scale as usize)
    })
}

/// Whole numbers; bounds with fractions are rounded towards each other.
fn whole(bounds: &Bounds, finest: u32) -> Option<String> {
    let unit = 10_i128.pow(finest);
    let (lowest, highest) = bounds.units(finest, (LIMIT - 1) * unit);
    let lowest = -(-lowest).div_euclid(unit);
    signed(lowest, highest.div_euclid(unit), 0)
}

/// Whole numbers, and fractions between them as far as their digits go.
fn general(bounds: &Bounds) -> Option<String> {
    let (lowest, highest) = bounds.units(0, LIMIT - 1);
    let mut options = vec![signed(lowest, highest, 0)?];
    let (lowest, highest) = (lowest.max(-FRACTION_LIMIT), highest.min(FRACTION_LIMIT));
    let fraction = format!(r"\.[0-9]{{1,{MAX_FRACTION}}}");
    if highest > 0 {
        options.extend(digits(lowest.max(0), highest - 1, 0).map(|whole| format!("{whole}{fraction}")));
    }
    if lowest < 0 {
        let whole = digits((-highest).max(0), -lowest - 1, 0);
        options.extend(whole.map(|whole| format!("-{whole}{fraction}")));
    }
    Some(format!("(?:{})", options.join("|")))
}

/// Numbers of units of `10^-scale`, with a minus where they are negative.
fn signed(lowest: i128, highest: i128, scale: usize) -> Option<String> {
    let negative = digits((-highest).max(1), -lowest, scale).map(|digits| format!("-{digits}"));
    let options: Vec<String> = digits(lowest.max(0), highest, scale)
        .into_iter()
        .chain(negative)
        .collect();
    (!options.is_empty()).then(|| format!("(?:{})", options.join("|")))
}

/// Numbers from `lowest` to `highest`, neither negative, with `scale` digits behind the point.
fn digits(lowest: i128, highest: i128, scale: usize) -> Option<String> {
    if lowest > highest {
        return None;
    }
    let mut options = Vec::new();
    let mut start = lowest;
    while start <= highest {
        let end = block(start, highest);
        options.push(spell(start, end, scale));
        start = end + 1;
    }
    Some(format!("(?:{})", options.join("|")))
}

/// Finds the last number of the largest block from `start` on whose digits vary independently of each other: some leading
/// digits stay, the next runs up, all behind it run from 0 to 9.
fn block(start: i128, highest: i128) -> i128 {
    let mut end = start;
    let mut unit = 1;
    loop {
        // The digit of this unit runs up to 9, or as far as `highest` lets it.
        let digit = start / unit % 10;
        let room = (highest + 1 - start) / unit;
        let steps = room.min(10 - digit);
        if steps < 1 {
            return end;
        }
        end = start + steps * unit - 1;
        // A larger block needs all digits so far to run from 0 to 9, and as many digits at its end as at its start.
        if digit != 0 || steps < 10 || start == 0 {
            return end;
        }
        unit *= 10;
        if start / unit == 0 {
            return end;
        }
    }
}

/// Spells a block of numbers digit by digit.
fn spell(start: i128, end: i128, scale: usize) -> String {
    let width = (scale + 1).max(end.to_string().len());
    let (first, last) = (format!("{start:0width$}"), format!("{end:0width$}"));
    let mut text = String::new();
    for (index, (a, b)) in first.chars().zip(last.chars()).enumerate() {
        if scale > 0 && index == width - scale {
            text.push_str(r"\.");
        }
        if a == b {
            text.push(a);
        } else {
            text.push_str(&format!("[{a}-{b}]"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::language::{ByteSet, Language};
    use super::super::regex::parse;
    use super::*;
    use proptest::prelude::*;

    fn decimal(text: &str) -> Option<Decimal> {
        Some(Decimal::parse(text).unwrap())
    }

    fn matches(pattern: &str, text: &str) -> bool {
        let mut language = Language::new(ByteSet::default());
        let start = language.regex(&parse(pattern).unwrap()).unwrap();
        let end = language.read(start, text.as_bytes());
        end.is_some_and(|end| language.is_accepting(end))
    }

    #[test]
    fn fractional_bounds_fix_the_digits_behind_the_point() {
        let bounds = Bounds {
            minimum: decimal("-0.25"),
            exclusive_maximum: decimal("1"),
            ..Bounds::default()
        };
        let pattern = number(&bounds, false).unwrap();
        assert!(
            ["-0.25", "0.00", "0.99", "-0.01"]
                .iter()
                .all(|text| matches(&pattern, text))
        );
        assert!(
            !["-0.26", "1.00", "0.5", "-0.00", "00.10"]
                .iter()
                .any(|text| matches(&pattern, text))
        );
    }

    #[test]
    fn numbers_without_bounds_have_up_to_fifteen_digits() {
        let any = number(&Bounds::default(), true).unwrap();
        assert!(
            matches(&any, "-999999999999999") && matches(&any, "0") && !matches(&any, "1000000000000000")
        );
        let any = number(&Bounds::default(), false).unwrap();
        assert!(
            matches(&any, "-0.5")
                && matches(&any, "12.345678")
                && !matches(&any, "1.")
                && !matches(&any, "01")
        );
    }

    #[test]
    fn bounds_beyond_a_thousand_million_leave_whole_numbers() {
        let bounds = Bounds {
            minimum: decimal("2000000000"),
            ..Bounds::default()
        };
        let large = number(&bounds, false).unwrap();
        assert!(matches(&large, "2000000000") && matches(&large, "999999999999999"));
        assert!(!matches(&large, "1999999999") && !matches(&large, "5") && !matches(&large, "5.5"));
        let any = number(&Bounds::default(), false).unwrap();
        assert!(
            matches(&any, "-1000000000") && matches(&any, "999999999.5") && !matches(&any, "1000000000.5")
        );
        let bounds = Bounds {
            exclusive_minimum: decimal("100000000000000"),
            ..Bounds::default()
        };
        let open = number(&bounds, false).unwrap();
        assert!(matches(&open, "100000000000001") && !matches(&open, "100000000000000"));
    }

    #[test]
    fn narrow_open_bounds_are_given_more_digits() {
        let open = |low: &str, high: &str| {
            let bounds = Bounds {
                exclusive_minimum: decimal(low),
                exclusive_maximum: decimal(high),
                ..Bounds::default()
            };
            number(&bounds, false)
        };
        let narrow = open("0.5", "0.51").unwrap();
        assert!(matches(&narrow, "0.501") && matches(&narrow, "0.509"));
        assert!(!matches(&narrow, "0.500") && !matches(&narrow, "0.510") && !matches(&narrow, "0.51"));
        assert!(matches(&open("0", "0.000001").unwrap(), "0.0000009"));
        assert!(matches(&open("-0.000001", "0").unwrap(), "-0.0000001"));
        assert_eq!(
            open("123456789.123456", "123456789.123457"),
            None,
            "it would have 16 digits"
        );
        assert_eq!(open("0.5", "0.5"), None);
    }

    #[test]
    fn nothing_between_bounds_is_no_expression() {
        let bounds = Bounds {
            exclusive_minimum: decimal("1"),
            exclusive_maximum: decimal("2"),
            ..Bounds::default()
        };
        assert_eq!(number(&bounds, true), None);
        assert!(number(&bounds, false).is_some());
        assert_eq!(Decimal::parse("1e300"), None);
    }

    proptest! {
        #[test]
        fn whole_numbers_match_exactly_within_the_bounds(lowest in -1200_i64..1200, size in 0_i64..1500, found in -1500_i64..1500) {
            let bounds = Bounds {
                minimum: decimal(&lowest.to_string()),
                maximum: decimal(&(lowest + size).to_string()),
                ..Bounds::default()
            };
            let within = (lowest..=lowest + size).contains(&found);
            prop_assert_eq!(matches(&number(&bounds, true).unwrap(), &found.to_string()), within);
            let general = number(&bounds, false).unwrap();
            prop_assert_eq!(matches(&general, &found.to_string()), within);
            let half = f64::from(i32::try_from(found).unwrap()) + 0.5;
            let inside = half >= lowest as f64 && half <= (lowest + size) as f64;
            prop_assert_eq!(matches(&general, &format!("{half:.1}")), inside);
        }
    }
}
