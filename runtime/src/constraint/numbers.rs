//! Regular expressions for the numbers between two bounds.
//!
//! A bound may be any JSON number; the generated numbers have at most [`MAX_DIGITS`] digits. So bounds are
//! clamped inwards to those: a minimum is rounded up, a maximum down.

/// The most digits of a number: as many as survive in 64-bit floating point.
pub(super) const MAX_DIGITS: usize = 15;
/// The most zeros behind those digits, where bounds leave no smaller number: enough for all of 64-bit
/// integers.
pub(super) const MAX_ZEROS: i32 = 5;
/// The most digits behind the point, unless bounds are so narrow that nothing with so few lies between them.
const MAX_FRACTION: i32 = 6;
/// The most digits behind the point: all but the zero in front of it.
const MAX_SCALE: i32 = 14;
/// The most digits of a bound that are looked at; 64-bit numbers have at most 20.
const MAX_BOUND_DIGITS: usize = 30;
/// The number behind the largest one.
const LIMIT: i128 = 10_i128.pow(15);
/// The number behind the largest one with a fraction: all digits, less those behind the point.
const FRACTION_LIMIT: i128 = 10_i128.pow(9);
/// Stands for all numbers that are larger.
const HUGE: i128 = 10_i128.pow(36);

/// A number, exactly: `value * 10^exponent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Decimal {
    value: i128,
    exponent: i32,
}

impl Decimal {
    /// Reads a number as JSON writes it; nothing where it has more digits than any 64-bit number.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (digits, power) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let fraction = fraction.trim_end_matches('0');
        if whole.len() + fraction.len() > MAX_BOUND_DIGITS {
            return None;
        }
        let power: i32 = power.parse().ok()?;
        Some(Self {
            value: format!("{whole}{fraction}").parse().ok()?,
            exponent: power.checked_sub(i32::try_from(fraction.len()).ok()?)?,
        })
    }

    /// Returns 10 to the power of a whole number from 0 to 5.
    pub(super) fn as_zeros(self) -> Option<i32> {
        (0..=MAX_ZEROS).find(|zeros| self.floor(-zeros) == 1 && self.ceil(-zeros) == 1)
    }

    /// Counts whole units of `10^-scale`, rounded down.
    pub(super) fn floor(self, scale: i32) -> i128 {
        let exponent = self.exponent.saturating_add(scale);
        let unit = 10_i128.checked_pow(exponent.unsigned_abs());
        if exponent >= 0 {
            let units = unit.and_then(|unit| self.value.checked_mul(unit));
            return units.unwrap_or(HUGE * self.value.signum()).clamp(-HUGE, HUGE);
        }
        // Of a unit that is larger than all there are, nothing is one whole.
        unit.map_or(self.value.min(0).signum(), |unit| self.value.div_euclid(unit))
    }

    /// Counts whole units of `10^-scale`, rounded up.
    pub(super) fn ceil(self, scale: i32) -> i128 {
        let negated = Self {
            value: -self.value,
            ..self
        };
        -negated.floor(scale)
    }

    /// Counts the digits behind the point.
    fn scale(self) -> i32 {
        if self.value == 0 {
            0
        } else {
            (-self.exponent).max(0)
        }
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

    /// The smallest and largest number of units of `10^-scale`, from `-limit` to `limit`.
    fn units(&self, scale: i32, limit: i128) -> (i128, i128) {
        let lowest = [
            self.minimum.map(|bound| bound.ceil(scale)),
            self.exclusive_minimum.map(|bound| bound.floor(scale) + 1),
        ];
        let highest = [
            self.maximum.map(|bound| bound.floor(scale)),
            self.exclusive_maximum.map(|bound| bound.ceil(scale) - 1),
        ];
        (
            lowest.into_iter().flatten().max().unwrap_or(-limit).max(-limit),
            highest.into_iter().flatten().min().unwrap_or(limit).min(limit),
        )
    }
}

/// Makes an expression for the numbers between bounds, or nothing where none can be written.
///
/// Whole bounds allow whole numbers and fractions of up to six digits; with other or exclusive bounds, all
/// numbers have as many digits behind the point as the finest bound, two to six; more where none lies between
/// the bounds, and fewer where there are too many in front of it. Where all whole numbers of 15 digits are
/// too small, numbers have as few zeros behind 15 digits as will do.
pub(super) fn number(bounds: &Bounds) -> Option<String> {
    let exclusive = bounds.exclusive_minimum.is_some() || bounds.exclusive_maximum.is_some();
    let finest = bounds.all().map(Decimal::scale).max().unwrap_or(0);
    if finest == 0 && !exclusive {
        return general(bounds).or_else(|| multiple(bounds, 0));
    }
    let usual = finest.clamp(2, MAX_FRACTION);
    let mut scales = (usual..=MAX_SCALE).chain((-MAX_ZEROS..usual).rev());
    scales.find_map(|scale| between(bounds, scale))
}

/// Makes an expression for the whole numbers between bounds that end in at least `zeros` zeros.
pub(super) fn multiple(bounds: &Bounds, zeros: i32) -> Option<String> {
    let mut scales = (-MAX_ZEROS..=-zeros).rev();
    scales.find_map(|scale| between(bounds, scale))
}

/// Numbers of up to 15 digits, the last of them of `10^-scale`.
fn between(bounds: &Bounds, scale: i32) -> Option<String> {
    let (lowest, highest) = bounds.units(scale, LIMIT - 1);
    signed(lowest, highest, scale)
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
fn signed(lowest: i128, highest: i128, scale: i32) -> Option<String> {
    let fraction = usize::try_from(scale).unwrap_or(0);
    let zeros = "0".repeat(usize::try_from(-scale).unwrap_or(0));
    // Zero has no zeros behind it.
    let zero = (lowest <= 0 && highest >= 0).then(|| spell(0, 0, fraction));
    let sized = |sign: &str, from: i128, to: i128| {
        digits(from, to, fraction).map(|digits| format!("{sign}{digits}{zeros}"))
    };
    let positive = sized("", lowest.max(1), highest);
    let negative = sized("-", (-highest).max(1), -lowest);
    let options: Vec<String> = [zero, positive, negative].into_iter().flatten().collect();
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

/// Finds the last number of the largest block from `start` on whose digits vary independently of each other:
/// some leading digits stay, the next runs up, all behind it run from 0 to 9.
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
        // A larger block needs all digits so far to run from 0 to 9, and as many digits at its end as at its
        // start.
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
    use proptest::prelude::*;

    use super::super::language::{ByteSet, Language};
    use super::super::regex::parse;
    use super::*;

    fn decimal(text: &str) -> Option<Decimal> {
        Some(Decimal::parse(text).unwrap())
    }

    fn matches(pattern: &str, text: &str) -> bool {
        let mut language = Language::new(ByteSet::default());
        let start = language.regex(&parse(pattern).unwrap()).unwrap();
        let end = language.derive_all(start, text.as_bytes());
        end.is_some_and(|end| language.is_accepting(end))
    }

    #[test]
    fn fractional_bounds_fix_the_digits_behind_the_point() {
        let bounds = Bounds {
            minimum: decimal("-0.25"),
            exclusive_maximum: decimal("1"),
            ..Bounds::default()
        };
        let pattern = number(&bounds).unwrap();
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
        let any = multiple(&Bounds::default(), 0).unwrap();
        assert!(
            matches(&any, "-999999999999999") && matches(&any, "0") && !matches(&any, "1000000000000000")
        );
        let any = number(&Bounds::default()).unwrap();
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
        let large = number(&bounds).unwrap();
        assert!(matches(&large, "2000000000") && matches(&large, "999999999999999"));
        assert!(!matches(&large, "1999999999") && !matches(&large, "5") && !matches(&large, "5.5"));
        let any = number(&Bounds::default()).unwrap();
        assert!(
            matches(&any, "-1000000000") && matches(&any, "999999999.5") && !matches(&any, "1000000000.5")
        );
        let bounds = Bounds {
            exclusive_minimum: decimal("100000000000000"),
            ..Bounds::default()
        };
        let open = number(&bounds).unwrap();
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
            number(&bounds)
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
        assert_eq!(multiple(&bounds, 0), None);
        assert!(number(&bounds).is_some());
        let beyond = Bounds {
            minimum: decimal("1e300"),
            ..Bounds::default()
        };
        assert_eq!(multiple(&beyond, 0), None, "it would have 301 digits");
        assert_eq!(number(&beyond), None);
    }

    /// Numbers between bounds as schemas write them; `not` are beside them, or cannot be written.
    fn between_are(bounds: &Bounds, integer: bool, between: &[&str], not: &[&str]) {
        let pattern = if integer {
            multiple(bounds, 0)
        } else {
            number(bounds)
        };
        let pattern = pattern.unwrap();
        for text in between {
            assert!(matches(&pattern, text), "{text} in {pattern}");
        }
        for text in not {
            assert!(!matches(&pattern, text), "{text} in {pattern}");
        }
    }

    #[test]
    fn bounds_of_more_than_fifteen_digits_are_clamped_to_what_can_be_written() {
        let bounds = |low: &str, high: &str| Bounds {
            minimum: decimal(low),
            maximum: decimal(high),
            ..Bounds::default()
        };
        for (low, high) in [
            ("-9007199254740991", "9007199254740991"),
            ("-9223372036854775808", "9223372036854775807"),
            ("-1.8446744073709552e+19", "18446744073709551615"),
            ("-1e+308", "1e+308"),
        ] {
            let (own, others) = (
                ["-999999999999999", "0", "7", "999999999999999"],
                ["1000000000000000", "1.", "-0"],
            );
            between_are(&bounds(low, high), true, &own, &others);
            between_are(&bounds(low, high), false, &own, &others);
            between_are(&bounds(low, high), false, &["0.5", "-12.25"], &[]);
        }
        between_are(
            &bounds("0.1234567890123456", "1"),
            false,
            &["0.123457", "1.000000"],
            &["0.123456", "0.5"],
        );
        between_are(
            &bounds("-5e-324", "0.30000000000000004"),
            false,
            &["0.300000", "0.000000"],
            &["0.300001", "-0.000001"],
        );
        between_are(
            &bounds("3.5e+2", "1e+3"),
            true,
            &["350", "1000"],
            &["349", "1001"],
        );
        between_are(
            &bounds("99999999999999.95", "1e+20"),
            false,
            &["100000000000000"],
            &["99999999999999"],
        );
    }

    #[test]
    fn exclusive_bounds_of_many_digits_leave_out_no_more_than_themselves() {
        let open = |low: &str, high: &str| Bounds {
            exclusive_minimum: decimal(low),
            exclusive_maximum: decimal(high),
            ..Bounds::default()
        };
        between_are(
            &open("-9007199254740992", "9007199254740992"),
            true,
            &["999999999999999", "-1"],
            &[],
        );
        assert_eq!(number(&open("0.3", "0.30000000000000004")), None);
    }

    #[test]
    fn numbers_beyond_fifteen_digits_end_in_zeros() {
        let bounds = |low: &str, high: &str| Bounds {
            minimum: decimal(low),
            maximum: decimal(high),
            ..Bounds::default()
        };
        let large = bounds("1000000000000000", "9223372036854775807");
        for integer in [true, false] {
            between_are(
                &large,
                integer,
                &["1000000000000000", "9999999999999990"],
                &["999999999999999", "1000000000000001", "0"],
            );
        }
        assert_eq!(
            multiple(&bounds("-9223372036854775808", "-9223372036854775800"), 0),
            None
        );
        assert_eq!(multiple(&bounds("9007199254740991", "9007199254740993"), 0), None);
    }

    #[test]
    fn multiples_of_a_power_of_ten_end_in_its_zeros() {
        assert_eq!(
            ["1", "1.0", "1e+2", "100000"].map(|text| decimal(text).unwrap().as_zeros()),
            [Some(0), Some(0), Some(2), Some(5)]
        );
        assert_eq!(
            ["0", "-1", "5", "0.1", "1000000", "1e+300"].map(|text| decimal(text).unwrap().as_zeros()),
            [None; 6]
        );
        let bounds = Bounds {
            minimum: decimal("-250"),
            maximum: decimal("1e+3"),
            ..Bounds::default()
        };
        let hundreds = multiple(&bounds, 2).unwrap();
        assert!(["-200", "0", "1000"].iter().all(|text| matches(&hundreds, text)));
        assert!(
            !["-300", "00", "000", "50", "1100"]
                .iter()
                .any(|text| matches(&hundreds, text))
        );
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
            prop_assert_eq!(matches(&multiple(&bounds, 0).unwrap(), &found.to_string()), within);
            let general = number(&bounds).unwrap();
            prop_assert_eq!(matches(&general, &found.to_string()), within);
            let half = f64::from(i32::try_from(found).unwrap()) + 0.5;
            let inside = half >= lowest as f64 && half <= (lowest + size) as f64;
            prop_assert_eq!(matches(&general, &format!("{half:.1}")), inside);
        }
    }
}
