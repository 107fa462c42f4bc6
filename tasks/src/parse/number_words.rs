//! Number words: what numbers are called in ten languages.
//!
//! Numbers below a hundred and the hundreds are tables; thousands and more are a number before a scale.
//! Chinese and Japanese are positional, and have a grammar of their own.

use multiway_prompts::NumberLanguage;

/// The most bytes of number words that are read; longer texts are no number.
const MAX_BYTES: usize = 256;

/// What numbers are called in one language, without spaces and hyphens.
struct Words {
    below_hundred: Vec<(String, u64)>,
    hundreds: Vec<(String, u64)>,
    /// The scales, the largest first: their names, and whether they may stand without a number.
    scales: &'static [(&'static [&'static str], u64)],
    /// What may stand between hundreds and the rest.
    connectors: &'static [&'static str],
}

/// Reads a whole number in words, such as `two hundred and five` or `einundzwanzig`.
pub(super) fn parse_words(text: &str, language: NumberLanguage) -> Option<u64> {
    if text.len() > MAX_BYTES {
        return None;
    }
    if matches!(language, NumberLanguage::Chinese | NumberLanguage::Japanese) {
        return positional(text);
    }
    let squeezed: String = text
        .to_lowercase()
        .chars()
        .filter(|c| !c.is_whitespace() && !matches!(c, '-' | '\u{2010}' | '\u{2011}'))
        .collect();
    let words = words_of(language);
    let wholes = words.number(&squeezed, 0);
    wholes
        .into_iter()
        .find(|(_, rest)| rest.is_empty())
        .map(|(value, _)| value)
}

impl Words {
    /// Lists the numbers that `text` starts with, each with what is left, from the scale at `scale` down.
    fn number<'t>(&self, text: &'t str, scale: usize) -> Vec<(u64, &'t str)> {
        let Some((names, factor)) = self.scales.get(scale) else {
            return self.below_thousand(text);
        };
        let mut found = self.number(text, scale + 1);
        let mut counts = self.below_thousand(text);
        counts.push((1, text));
        for (count, rest) in counts.into_iter().filter(|(count, _)| *count > 0) {
            for rest in names.iter().filter_map(|name| rest.strip_prefix(name)) {
                let high = count * factor;
                found.push((high, rest));
                let lower = self.number(self.connected(rest), scale + 1);
                let below = lower.into_iter().filter(|(low, _)| *low > 0 && low < factor);
                found.extend(below.map(|(low, rest)| (high + low, rest)));
            }
        }
        found
    }

    fn below_thousand<'t>(&self, text: &'t str) -> Vec<(u64, &'t str)> {
        let mut found = prefixes(&self.below_hundred, text);
        for (hundreds, rest) in prefixes(&self.hundreds, text) {
            found.push((hundreds, rest));
            let units = prefixes(&self.below_hundred, self.connected(rest));
            let units = units.into_iter().filter(|(units, _)| *units > 0);
            found.extend(units.map(|(units, rest)| (hundreds + units, rest)));
        }
        found
    }

    fn connected<'t>(&self, text: &'t str) -> &'t str {
        let mut rest = self.connectors.iter().filter_map(|word| text.strip_prefix(word));
        rest.next().unwrap_or(text)
    }
}

fn prefixes<'t>(table: &[(String, u64)], text: &'t str) -> Vec<(u64, &'t str)> {
    let left = |(word, value): &(String, u64)| Some((*value, text.strip_prefix(word.as_str())?));
    table.iter().filter_map(left).collect()
}

/// Pairs words with values that rise by `step`.
fn table(words: &str, first: u64, step: u64) -> Vec<(String, u64)> {
    let values = (0..).map(|index| first + index * step);
    let entries = words.split_whitespace().zip(values);
    let spellings = |(word, value): (&str, u64)| {
        let spelt: Vec<_> = word.split('/').map(|word| (word.to_owned(), value)).collect();
        spelt
    };
    entries.flat_map(spellings).collect()
}

/// Joins each of the tens with each of the units.
fn compounds(
    tens: &[(String, u64)],
    units: &[(String, u64)],
    join: impl Fn(&str, &str, u64) -> String,
) -> Vec<(String, u64)> {
    let with = |(ten, value): &(String, u64)| {
        let value = *value;
        let joined: Vec<_> = units
            .iter()
            .filter(|(_, unit)| (1..10).contains(unit))
            .map(|(word, unit)| (join(ten, word, *unit), value + unit))
            .collect();
        joined
    };
    tens.iter().flat_map(with).collect()
}

/// Puts each digit before the word for a hundred; the word alone is a hundred too.
fn regular_hundreds(units: &[(String, u64)], names: &[&str]) -> Vec<(String, u64)> {
    let mut hundreds = Vec::new();
    for name in names {
        hundreds.push(((*name).to_owned(), 100));
        let digits = units.iter().filter(|(_, unit)| (1..10).contains(unit));
        hundreds.extend(digits.map(|(word, unit)| (format!("{word}{name}"), unit * 100)));
    }
    hundreds
}

fn words_of(language: NumberLanguage) -> Words {
    match language {
        NumberLanguage::German => german(),
        NumberLanguage::French => french(),
        NumberLanguage::Spanish => spanish(),
        NumberLanguage::Italian => italian(),
        NumberLanguage::Portuguese => portuguese(),
        NumberLanguage::Russian => russian(),
        NumberLanguage::Hindi => hindi(),
        _ => english(),
    }
}

fn english() -> Words {
    let mut below = table(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen \
         seventeen eighteen nineteen",
        0,
        1,
    );
    let tens = table(
        "twenty thirty forty/fourty fifty sixty seventy eighty ninety",
        20,
        10,
    );
    let hundreds = regular_hundreds(&below, &["hundred", "ahundred"]);
    below.extend(compounds(&tens, &below, |ten, unit, _| format!("{ten}{unit}")));
    below.extend(tens);
    Words {
        below_hundred: below,
        hundreds,
        scales: &[
            (&["billion", "abillion"], 1_000_000_000),
            (&["million", "amillion"], 1_000_000),
            (&["thousand", "athousand"], 1000),
        ],
        connectors: &["and"],
    }
}

fn german() -> Words {
    let mut below = table(
        "null ein/eins/eine zwei/zwo drei vier fünf sechs sieben acht neun zehn elf zwölf dreizehn vierzehn fünfzehn \
         sechzehn siebzehn achtzehn neunzehn",
        0,
        1,
    );
    let tens = table(
        "zwanzig dreißig/dreissig vierzig fünfzig sechzig siebzig achtzig neunzig",
        20,
        10,
    );
    let hundreds = regular_hundreds(&below, &["hundert"]);
    below.extend(compounds(&tens, &below, |ten, unit, _| format!("{unit}und{ten}")));
    below.extend(tens);
    Words {
        below_hundred: below,
        hundreds,
        scales: &[
            (&["milliarden", "milliarde"], 1_000_000_000),
            (&["millionen", "million"], 1_000_000),
            (&["tausend"], 1000),
        ],
        connectors: &["und"],
    }
}

fn french() -> Words {
    let small = table(
        "zéro/zero un/une deux trois quatre cinq six sept huit neuf dix onze douze treize quatorze quinze seize dixsept \
         dixhuit dixneuf",
        0,
        1,
    );
    let tens = table(
        "vingt trente quarante cinquante soixante septante huitante/octante nonante",
        20,
        10,
    );
    let hundreds = regular_hundreds(&small, &["cents", "cent"]);
    let mut below = small.clone();
    below.extend(compounds(&tens, &small, |ten, unit, value| {
        if value == 1 {
            format!("{ten}et{unit}")
        } else {
            format!("{ten}{unit}")
        }
    }));
    below.extend(tens);
    for (word, value) in &small {
        match value {
            11 => below.push((format!("soixanteet{word}"), 71)),
            10..20 => below.push((format!("soixante{word}"), 60 + value)),
            _ => {}
        }
        if (1..20).contains(value) {
            below.push((format!("quatrevingt{word}"), 80 + value));
        }
    }
    below.extend(table("quatrevingts/quatrevingt", 80, 1));
    Words {
        below_hundred: below,
        hundreds,
        scales: &[
            (&["milliards", "milliard"], 1_000_000_000),
            (&["millions", "million"], 1_000_000),
            (&["mille"], 1000),
        ],
        connectors: &[],
    }
}

fn spanish() -> Words {
    let small = table(
        "cero uno/un/una dos tres cuatro cinco seis siete ocho nueve diez once doce trece catorce quince \
         dieciséis/dieciseis diecisiete dieciocho diecinueve veinte veintiuno/veintiún/veintiuna \
         veintidós/veintidos veintitrés/veintitres veinticuatro veinticinco veintiséis/veintiseis veintisiete \
         veintiocho veintinueve",
        0,
        1,
    );
    let tens = table(
        "treinta cuarenta cincuenta sesenta setenta ochenta noventa",
        30,
        10,
    );
    let mut below = small.clone();
    below.extend(compounds(&tens, &small, |ten, unit, _| format!("{ten}y{unit}")));
    below.extend(tens);
    Words {
        below_hundred: below,
        hundreds: table(
            "cien/ciento doscientos/doscientas trescientos/trescientas cuatrocientos/cuatrocientas quinientos/quinientas \
             seiscientos/seiscientas setecientos/setecientas ochocientos/ochocientas novecientos/novecientas",
            100,
            100,
        ),
        scales: &[(&["millones", "millón", "millon"], 1_000_000), (&["mil"], 1000)],
        connectors: &[],
    }
}

fn italian() -> Words {
    let small = table(
        "zero uno/un/una due tre/tré quattro cinque sei sette otto nove dieci undici dodici tredici quattordici quindici \
         sedici diciassette diciotto diciannove",
        0,
        1,
    );
    let tens = table(
        "venti trenta quaranta cinquanta sessanta settanta ottanta novanta",
        20,
        10,
    );
    let hundreds = regular_hundreds(&small, &["cento"]);
    let mut below = small.clone();
    // The vowel at the end of a ten is dropped before one and eight.
    below.extend(compounds(&tens, &small, |ten, unit, value| {
        let mut ten = ten.to_owned();
        if matches!(value, 1 | 8) {
            ten.pop();
        }
        ten + unit
    }));
    below.extend(tens);
    Words {
        below_hundred: below,
        hundreds,
        scales: &[
            (&["miliardi", "miliardo"], 1_000_000_000),
            (&["milioni", "milione"], 1_000_000),
            (&["mila", "mille"], 1000),
        ],
        connectors: &["e"],
    }
}

fn portuguese() -> Words {
    let small = table(
        "zero um/uma dois/duas três/tres quatro cinco seis sete oito nove dez onze doze treze quatorze/catorze quinze \
         dezesseis/dezasseis dezessete/dezassete dezoito dezenove/dezanove",
        0,
        1,
    );
    let tens = table(
        "vinte trinta quarenta cinquenta sessenta setenta oitenta noventa",
        20,
        10,
    );
    let mut below = small.clone();
    below.extend(compounds(&tens, &small, |ten, unit, _| format!("{ten}e{unit}")));
    below.extend(tens);
    Words {
        below_hundred: below,
        hundreds: table(
            "cem/cento duzentos/duzentas trezentos/trezentas quatrocentos/quatrocentas quinhentos/quinhentas \
             seiscentos/seiscentas setecentos/setecentas oitocentos/oitocentas novecentos/novecentas",
            100,
            100,
        ),
        scales: &[(&["milhões", "milhão"], 1_000_000), (&["mil"], 1000)],
        connectors: &["e"],
    }
}

fn russian() -> Words {
    let small = table(
        "ноль/нуль один/одна/одно два/две три четыре пять шесть семь восемь девять десять одиннадцать двенадцать \
         тринадцать четырнадцать пятнадцать шестнадцать семнадцать восемнадцать девятнадцать",
        0,
        1,
    );
    let tens = table(
        "двадцать тридцать сорок пятьдесят шестьдесят семьдесят восемьдесят девяносто",
        20,
        10,
    );
    let mut below = small.clone();
    below.extend(compounds(&tens, &small, |ten, unit, _| format!("{ten}{unit}")));
    below.extend(tens);
    Words {
        below_hundred: below,
        hundreds: table(
            "сто двести триста четыреста пятьсот шестьсот семьсот восемьсот девятьсот",
            100,
            100,
        ),
        scales: &[
            (&["миллиардов", "миллиарда", "миллиард"], 1_000_000_000),
            (&["миллионов", "миллиона", "миллион"], 1_000_000),
            (&["тысячи", "тысяча", "тысяч"], 1000),
        ],
        connectors: &[],
    }
}

fn hindi() -> Words {
    let below = table(
        "शून्य एक दो तीन चार पाँच/पांच छह/छः/छे सात आठ नौ दस ग्यारह बारह तेरह चौदह पंद्रह/पन्द्रह सोलह सत्रह अठारह/अट्ठारह उन्नीस \
         बीस इक्कीस बाईस तेईस चौबीस पच्चीस छब्बीस सत्ताईस अट्ठाईस/अठाईस उनतीस/उन्तीस तीस इकतीस/इकत्तीस बत्तीस तैंतीस चौंतीस पैंतीस छत्तीस \
         सैंतीस अड़तीस उनतालीस/उन्तालीस चालीस इकतालीस बयालीस तैंतालीस चौवालीस/चवालीस पैंतालीस छियालीस सैंतालीस अड़तालीस उनचास पचास \
         इक्यावन बावन तिरपन/तिरेपन चौवन पचपन छप्पन सत्तावन अट्ठावन/अठावन उनसठ साठ इकसठ बासठ तिरसठ/तिरेसठ चौंसठ/चौसठ पैंसठ \
         छियासठ सड़सठ अड़सठ उनहत्तर सत्तर इकहत्तर बहत्तर तिहत्तर चौहत्तर पचहत्तर छिहत्तर सतहत्तर अठहत्तर उन्यासी/उनासी अस्सी \
         इक्यासी बयासी तिरासी चौरासी पचासी छियासी सत्तासी/सतासी अट्ठासी/अठासी नवासी नब्बे इक्यानवे/इक्यानबे बानवे/बानबे तिरानवे/तिरानबे \
         चौरानवे/चौरानबे पचानवे/पचानबे/पंचानवे छियानवे/छियानबे सत्तानवे/सत्तानबे अट्ठानवे/अट्ठानबे निन्यानवे/निन्यानबे",
        0,
        1,
    );
    let hundreds = regular_hundreds(&below, &["सौ"]);
    Words {
        below_hundred: below,
        hundreds,
        scales: &[
            (&["करोड़"], 10_000_000),
            (&["लाख"], 100_000),
            (&["हज़ार", "हजार"], 1000),
        ],
        connectors: &[],
    }
}

/// Reads Chinese and Japanese numerals: `三百二十五`, `1億2000万`, or digits alone, `二〇二四`.
fn positional(text: &str) -> Option<u64> {
    let chars: Vec<char> = text.chars().filter(|c| !c.is_whitespace()).collect();
    let digits: Option<Vec<u64>> = chars.iter().map(|c| han_digit(*c)).collect();
    if let Some(digits) = digits.filter(|digits| digits.len() > 1) {
        let push = |number: u64, digit: &u64| number.checked_mul(10)?.checked_add(*digit);
        return digits.iter().try_fold(0, push);
    }
    let (mut total, mut rest) = (0_u64, chars.as_slice());
    let mut any = false;
    for (names, factor) in [
        (['兆', '兆'], 1_000_000_000_000),
        (['億', '亿'], 100_000_000),
        (['万', '萬'], 10_000),
    ] {
        let Some(at) = rest.iter().position(|c| names.contains(c)) else {
            continue;
        };
        let (section, after) = (rest.get(..at)?, rest.get(at + 1..)?);
        total = total.checked_add(below_ten_thousand(section)?.checked_mul(factor)?)?;
        (rest, any) = (after, true);
    }
    if rest.is_empty() {
        return any.then_some(total);
    }
    // A zero stands for the places that are left out.
    let rest = if any {
        rest.strip_prefix(&['零']).unwrap_or(rest)
    } else {
        rest
    };
    total.checked_add(below_ten_thousand(rest)?)
}

fn below_ten_thousand(section: &[char]) -> Option<u64> {
    let ascii: Option<Vec<u64>> = section.iter().map(|c| c.to_digit(10).map(u64::from)).collect();
    if let Some(digits) = ascii.filter(|digits| (1..=4).contains(&digits.len())) {
        return Some(digits.iter().fold(0, |number, digit| number * 10 + digit));
    }
    let (mut total, mut digit, mut limit) = (0, None, 10_000);
    for c in section {
        let unit = match c {
            '十' => 10,
            '百' => 100,
            '千' => 1000,
            '零' if digit.is_none() && total > 0 => continue,
            c => {
                if digit.replace(han_digit(*c)?).is_some() {
                    return None;
                }
                continue;
            }
        };
        if unit >= limit {
            return None;
        }
        total += digit.take().unwrap_or(1) * unit;
        limit = unit;
    }
    match digit {
        Some(digit) => Some(total + digit),
        None => (total > 0).then_some(total),
    }
}

fn han_digit(c: char) -> Option<u64> {
    let digit = match c {
        '零' | '〇' => 0,
        '一' | '壹' => 1,
        '二' | '两' | '兩' => 2,
        '三' => 3,
        '四' => 4,
        '五' => 5,
        '六' => 6,
        '七' => 7,
        '八' => 8,
        '九' => 9,
        _ => return None,
    };
    Some(digit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use NumberLanguage::{
        Chinese, English, French, German, Hindi, Italian, Japanese, Portuguese, Russian, Spanish,
    };

    #[test]
    fn numbers_are_read_as_ten_languages_call_them() {
        for (language, text, value) in [
            (English, "Two hundred and five", 205),
            (English, "one million two hundred thousand forty-two", 1_200_042),
            (German, "einundzwanzig", 21),
            (German, "zweitausenddreihundertfünfundvierzig", 2345),
            (French, "quatre-vingt-dix-sept", 97),
            (French, "soixante et onze", 71),
            (French, "deux mille trois cents", 2300),
            (Spanish, "ciento veintitrés", 123),
            (Spanish, "treinta y uno mil", 31_000),
            (Italian, "ventotto", 28),
            (Italian, "duemilacentouno", 2101),
            (Portuguese, "cento e vinte e três", 123),
            (Russian, "две тысячи пятьсот сорок три", 2543),
            (Hindi, "निन्यानवे", 99),
            (Hindi, "दो लाख पाँच हज़ार तीन सौ", 205_300),
            (Chinese, "三百零五", 305),
            (Chinese, "一万零二十", 10_020),
            (Japanese, "二〇二四", 2024),
            (Japanese, "1億2000万", 120_000_000),
            (Japanese, "十", 10),
        ] {
            assert_eq!(parse_words(text, language), Some(value), "{text}");
        }
    }

    #[test]
    fn what_is_no_number_in_a_language_is_refused() {
        for (language, text) in [
            (English, "two three"),
            (English, "hundred thousand million"),
            (English, "a few"),
            (German, "twenty"),
            (Spanish, "veinte diez"),
            (Russian, "пять двадцать"),
            (Chinese, "十百"),
            (Chinese, "三三百"),
            (Hindi, "बहुत"),
            (English, ""),
        ] {
            assert_eq!(parse_words(text, language), None, "{text}");
        }
    }

    #[test]
    fn every_number_below_a_hundred_has_a_word_in_every_language() {
        for language in NumberLanguage::ALL {
            if matches!(language, Chinese | Japanese) {
                continue;
            }
            let words = words_of(language).below_hundred;
            for value in 0..100 {
                let spelt = words.iter().filter(|(_, other)| *other == value);
                let mut read = spelt.map(|(word, _)| parse_words(word, language)).peekable();
                assert!(read.peek().is_some(), "{language:?} {value}");
                assert!(read.all(|read| read == Some(value)), "{language:?} {value}");
            }
        }
    }
}
