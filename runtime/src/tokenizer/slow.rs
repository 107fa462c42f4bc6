//! SentencePiece models, run by the `sentencepiece` library, with the tokens that the slow classes of
//! `transformers` put on top: T5's `<extra_id_N>`, the numbering of XLM-R, and what was added later.
//!
//! Sources: `transformers` 4.57, `tokenization_utils.py`, `PreTrainedTokenizer.tokenize`; `T5Tokenizer`;
//! `XLMRobertaTokenizer`: ids 0 to 3 are `<s>`, `<pad>`, `</s>` and `<unk>`, then come the model's pieces
//! from its fourth on, each one id later than in the model, and `<mask>` behind the last. BEiT-3 uses its
//! `beit3.spm` so.

use aho_corasick::{AhoCorasick, MatchKind};
use sentencepiece::SentencePieceProcessor;

use super::error::{TokenizerError, malformed};
use super::files::{AddedToken, SlowSettings};
use super::proto::{FILE, ScoredPiece, SentencePieceModel};
use super::token::{LeadingSpace, MASK, TokenId};
use super::vocabulary::{META_SPACE, Piece, PieceKind, Vocabulary, place};

/// How many `<extra_id_N>` T5 has where nothing says otherwise.
const EXTRA_IDS: usize = 100;

/// How many pieces of the model, `<unk>`, `<s>` and `</s>`, have other ids for XLM-R.
const REPLACED: usize = 3;

/// The id of `<unk>` in XLM-R's numbering.
const XLM_UNKNOWN: TokenId = 3;

/// Sets `add_dummy_prefix` of a serialised model's `normalizer_spec` to false: in a protobuf message, what
/// comes later counts.
const WITHOUT_DUMMY_PREFIX: [u8; 4] = [0x1a, 2, 0x18, 0];

/// Whose rules to follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rules {
    /// The library's alone.
    SentencePiece,
    T5,
    XlmRoberta,
}

/// A SentencePiece model and the tokens on top of it.
pub(super) struct SlowTokenizer {
    processor: SentencePieceProcessor,
    rules: Rules,
    /// What is added to the model's ids, but for the first ones.
    offset: TokenId,
    unknown: TokenId,
    /// The tokens that are cut out of text before the model sees it.
    added: Vec<(TokenId, AddedToken)>,
    /// Finds those that are not special in text; their numbers are those of `added`.
    matcher: Option<(AhoCorasick, Vec<usize>)>,
    /// For T5 without its older behaviour: how many ids `<unk>` as text has.
    unknown_length: Option<usize>,
    add_prefix_space: bool,
}

/// A part of a prompt: text, or a special token of the template.
#[derive(Clone, Debug)]
pub(super) enum SlowPart<'a> {
    Text(&'a str),
    Special(TokenId),
}

/// A part of a text before the model sees it.
#[derive(Clone, Debug)]
enum Segment {
    Text(String),
    /// A token that was added, by its place in the list.
    Added(usize),
    /// Another special token.
    Special(TokenId),
}

/// A tokenizer, its table of tokens, and how decoded text starts.
pub(super) type Opened = (SlowTokenizer, Vocabulary, LeadingSpace);

impl SlowTokenizer {
    /// Opens a model that has all of its tokens itself.
    ///
    /// # Errors
    /// [`TokenizerError`] where the bytes are no SentencePiece model.
    pub(super) fn plain(bytes: &[u8]) -> Result<Opened, TokenizerError> {
        let model = SentencePieceModel::parse(bytes)?;
        let pieces = model.pieces.iter().map(own_piece).collect();
        Self::open(
            bytes,
            &model,
            Rules::SentencePiece,
            pieces,
            &SlowSettings::default(),
        )
    }

    /// Opens T5's: where the model has no `<extra_id_N>`, as T5's own, these are the ids behind its last,
    /// counted down; where it has them, as mT5's, they are special tokens.
    ///
    /// # Errors
    /// [`TokenizerError`] where the bytes are no SentencePiece model, or the added tokens do not fit it.
    pub(super) fn t5(bytes: &[u8], settings: &SlowSettings) -> Result<Opened, TokenizerError> {
        let model = SentencePieceModel::parse(bytes)?;
        let mut has_gaps = false;
        let mut pieces: Vec<Piece> = Vec::with_capacity(model.pieces.len() + EXTRA_IDS);
        for piece in &model.pieces {
            let name = piece.text.trim_start_matches(META_SPACE);
            if name.starts_with("<extra_id_") && multiway_prompts::is_special_form(name) {
                has_gaps = true;
                pieces.push(Piece::new(name, PieceKind::Control));
            } else {
                pieces.push(own_piece(piece));
            }
        }
        let mut settings = settings.clone();
        if !has_gaps {
            add_gaps(pieces.len(), &mut settings);
        }
        Self::open(bytes, &model, Rules::T5, pieces, &settings)
    }

    /// Opens a model whose pieces are numbered as XLM-R numbers them.
    ///
    /// # Errors
    /// [`TokenizerError`] where the bytes are no SentencePiece model, or it does not begin with `<unk>`,
    /// `<s>` and `</s>`.
    pub(super) fn xlm_roberta(bytes: &[u8], settings: &SlowSettings) -> Result<Opened, TokenizerError> {
        let model = SentencePieceModel::parse(bytes)?;
        let (replaced, rest) = model
            .pieces
            .split_at_checked(REPLACED)
            .unwrap_or((&model.pieces, &[]));
        let names: Vec<&str> = replaced.iter().map(|piece| piece.text.as_str()).collect();
        if names != ["<unk>", "<s>", "</s>"] {
            let expected = "'<unk>', '<s>' and '</s>'";
            return Err(malformed(FILE, "the first pieces", names.join(", "), expected));
        }
        let mut pieces = vec![
            Piece::new("<s>", PieceKind::Control),
            Piece::new("<pad>", PieceKind::Control),
            Piece::new("</s>", PieceKind::Control),
            Piece::new("<unk>", PieceKind::Unknown),
        ];
        pieces.extend(rest.iter().map(own_piece));
        let mut settings = settings.clone();
        let mask = AddedToken {
            lstrip: true,
            ..AddedToken::plain(MASK, true)
        };
        settings.numbered.entry(pieces.len() as u64).or_insert(mask);
        Self::open(bytes, &model, Rules::XlmRoberta, pieces, &settings)
    }

    fn open(
        bytes: &[u8],
        model: &SentencePieceModel,
        rules: Rules,
        mut pieces: Vec<Piece>,
        settings: &SlowSettings,
    ) -> Result<Opened, TokenizerError> {
        let added = added_tokens(&mut pieces, settings)?;
        let vocabulary = Vocabulary::new(FILE, pieces)?;
        let is_new = rules == Rules::T5 && settings.legacy == Some(false);
        let processor = if is_new {
            processor(&[bytes, &WITHOUT_DUMMY_PREFIX].concat(), model)?
        } else {
            processor(bytes, model)?
        };
        let unknown_length = is_new.then(|| processor.encode("<unk>").map_or(0, |ids| ids.len()));
        let offset = TokenId::from(rules == Rules::XlmRoberta);
        let unknown = match rules {
            Rules::XlmRoberta => XLM_UNKNOWN,
            _ => processor.unk_id(),
        };
        let in_text: Vec<usize> = (0..added.len())
            .filter(|index| added.get(*index).is_some_and(|(_, token)| !token.special))
            .collect();
        let names = in_text
            .iter()
            .filter_map(|index| added.get(*index))
            .map(|(_, token)| &token.content);
        let matcher = (!in_text.is_empty())
            .then(|| {
                AhoCorasick::builder()
                    .match_kind(MatchKind::LeftmostLongest)
                    .build(names)
            })
            .transpose()
            .map_err(|e| malformed(FILE, "the added tokens", e, "tokens that can be searched for"))?;
        let tokenizer = Self {
            processor,
            rules,
            offset,
            unknown,
            added,
            matcher: matcher.map(|matcher| (matcher, in_text)),
            unknown_length,
            add_prefix_space: settings.add_prefix_space.unwrap_or(true),
        };
        let space = match (model.remove_extra_whitespaces, model.add_dummy_prefix) {
            (true, _) => LeadingSpace::AllDropped,
            (false, true) => LeadingSpace::OneDropped,
            (false, false) => LeadingSpace::Kept,
        };
        Ok((tokenizer, vocabulary, space))
    }

    /// Tokenizes plain text.
    ///
    /// # Errors
    /// [`TokenizerError::Encode`] where the library fails.
    pub(super) fn encode_text(&self, text: &str) -> Result<Vec<TokenId>, TokenizerError> {
        let mut segments = Vec::new();
        self.push_text(text, &mut segments);
        self.encode(segments)
    }

    /// Tokenizes texts with special tokens between them.
    ///
    /// # Errors
    /// [`TokenizerError::Encode`] where the library fails.
    pub(super) fn encode_parts(&self, parts: &[SlowPart<'_>]) -> Result<Vec<TokenId>, TokenizerError> {
        let mut segments = Vec::new();
        let mut text = String::new();
        for part in parts {
            match part {
                SlowPart::Text(part) => text.push_str(part),
                SlowPart::Special(id) => {
                    self.push_text(&std::mem::take(&mut text), &mut segments);
                    segments.push(self.special(*id));
                }
            }
        }
        self.push_text(&text, &mut segments);
        self.encode(segments)
    }

    /// Returns whether trailing white space of decoded text is stripped.
    pub(super) fn strips_end(&self) -> bool {
        self.rules != Rules::SentencePiece
    }

    pub(super) fn unknown(&self) -> TokenId {
        self.unknown
    }

    fn special(&self, id: TokenId) -> Segment {
        let place = self.added.iter().position(|(known, _)| *known == id);
        place.map_or(Segment::Special(id), Segment::Added)
    }

    /// Cuts the added tokens that are not special out of a text.
    fn push_text(&self, text: &str, segments: &mut Vec<Segment>) {
        let mut start = 0;
        let push = |range: std::ops::Range<usize>, segments: &mut Vec<Segment>| {
            let text = text.get(range).unwrap_or_default();
            if !text.is_empty() {
                segments.push(Segment::Text(text.to_owned()));
            }
        };
        if let Some((matcher, places)) = &self.matcher {
            for found in matcher.find_iter(text) {
                if let Some(place) = places.get(found.pattern().as_usize()) {
                    push(start..found.start(), segments);
                    segments.push(Segment::Added(*place));
                    start = found.end();
                }
            }
        }
        push(start..text.len(), segments);
    }

    fn encode(&self, mut segments: Vec<Segment>) -> Result<Vec<TokenId>, TokenizerError> {
        if self.unknown_length.is_some() && !segments.is_empty() {
            self.open_with_space(&mut segments);
        }
        for index in 0..segments.len() {
            self.join_neighbours(&mut segments, index);
        }
        let mut ids = Vec::new();
        let mut after_lone_space = false;
        for (index, segment) in segments.iter().enumerate() {
            match segment {
                Segment::Text(text) if text.is_empty() => {}
                Segment::Text(text) => {
                    let mut more = self.encode_segment(text)?;
                    after_lone_space =
                        index == 0 && more.len() == 1 && text.trim_start_matches(META_SPACE).is_empty();
                    ids.append(&mut more);
                }
                Segment::Special(_) | Segment::Added(_) => {
                    let (id, special) = self.token(segment);
                    if std::mem::take(&mut after_lone_space) && special && self.unknown_length.is_some() {
                        ids.clear();
                    }
                    ids.push(id);
                }
            }
        }
        Ok(ids)
    }

    fn token(&self, segment: &Segment) -> (TokenId, bool) {
        match segment {
            Segment::Special(id) => (*id, true),
            Segment::Added(place) => {
                let token = self.added.get(*place);
                token.map_or((self.unknown, true), |(id, token)| (*id, token.special))
            }
            Segment::Text(_) => (self.unknown, false),
        }
    }

    /// Writes U+2581 as spaces and puts one in front, as T5 does without its older behaviour.
    fn open_with_space(&self, segments: &mut Vec<Segment>) {
        for segment in segments.iter_mut() {
            if let Segment::Text(text) = segment {
                *text = text.replace(META_SPACE, " ");
            }
        }
        if !self.add_prefix_space {
            return;
        }
        match segments.first_mut() {
            Some(Segment::Text(text)) => text.insert(0, META_SPACE),
            _ => segments.insert(0, Segment::Text(META_SPACE.to_string())),
        }
    }

    /// Strips spaces beside an added token, and leaves one alone that is part of a word, as its settings say.
    fn join_neighbours(&self, segments: &mut [Segment], index: usize) {
        let (before, rest) = segments.split_at_mut(index);
        let Some((this, after)) = rest.split_first_mut() else {
            return;
        };
        let Segment::Added(place) = this else { return };
        let Some((_, token)) = self.added.get(*place) else {
            return;
        };
        let (left, right) = (
            before.last_mut().and_then(text_of),
            after.first_mut().and_then(text_of),
        );
        let (mut left, mut right) = (
            left.filter(|text| !text.is_empty()),
            right.filter(|text| !text.is_empty()),
        );
        // Whether it is part of a word is told by the texts before they are stripped.
        let joins_left = left.as_ref().is_some_and(|left| !left.ends_with(' '));
        let joins_right = right.as_ref().is_some_and(|right| !right.starts_with(' '));
        if token.rstrip
            && let Some(right) = &mut right
        {
            **right = right.trim_start_matches(is_python_space).to_owned();
        }
        if token.lstrip
            && let Some(left) = &mut left
        {
            left.truncate(left.trim_end_matches(is_python_space).len());
        }
        if !token.single_word || token.special {
            return;
        }
        match (left, right) {
            (Some(left), _) if joins_left => left.push_str(&token.content),
            (_, Some(right)) if joins_right => right.insert_str(0, &token.content),
            _ => return,
        }
        *this = Segment::Text(String::new());
    }

    fn encode_segment(&self, text: &str) -> Result<Vec<TokenId>, TokenizerError> {
        let fail = |e: sentencepiece::SentencePieceError| TokenizerError::Encode {
            problem: e.to_string(),
        };
        let skipped = self
            .unknown_length
            .filter(|_| text.starts_with([META_SPACE, ' ']));
        let pieces = match skipped {
            None => self.processor.encode(text),
            Some(_) => self.processor.encode(&format!("<unk>{text}")),
        };
        let pieces = pieces.map_err(fail)?;
        let numbered = pieces.into_iter().map(|piece| match (self.rules, piece.id) {
            (Rules::XlmRoberta, 0) => self.unknown,
            (_, id) => id + self.offset,
        });
        Ok(numbered.skip(skipped.unwrap_or_default()).collect())
    }
}

/// Loads a model that was checked into the library.
fn processor(bytes: &[u8], model: &SentencePieceModel) -> Result<SentencePieceProcessor, TokenizerError> {
    let processor = SentencePieceProcessor::from_serialized_proto(bytes)
        .map_err(|e| malformed(FILE, "the file", e, "a SentencePiece model"))?;
    if processor.len() != model.pieces.len() {
        let (found, expected) = (processor.len(), model.pieces.len());
        return Err(malformed(
            FILE,
            "the file",
            format!("{found} pieces"),
            format!("{expected} pieces"),
        ));
    }
    Ok(processor)
}

fn own_piece(piece: &ScoredPiece) -> Piece {
    Piece::new(&piece.text, piece.kind)
}

fn text_of(segment: &mut Segment) -> Option<&mut String> {
    match segment {
        Segment::Text(text) => Some(text),
        Segment::Added(_) | Segment::Special(_) => None,
    }
}

/// Returns whether Python's `str.strip` strips a character.
fn is_python_space(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\u{1c}'..='\u{1f}')
}

/// Numbers `<extra_id_N>` behind the last of `pieces` pieces, counted down; where `additional_special_tokens`
/// lists other tokens alone, they are added behind those instead, counted up.
fn add_gaps(pieces: usize, settings: &mut SlowSettings) {
    let count = settings.extra_ids.unwrap_or(EXTRA_IDS);
    let listed = settings.additional.as_ref();
    let listed = listed.map(|names| names.iter().filter(|name| name.contains("<extra_id_")).count());
    let name = |number| format!("<extra_id_{number}>");
    if listed == Some(0)
        && settings
            .additional
            .as_ref()
            .is_some_and(|names| !names.is_empty())
    {
        settings
            .specials
            .extend((0..count).map(|number| AddedToken::plain(name(number), true)));
        return;
    }
    let known: Vec<String> = settings
        .numbered
        .values()
        .map(|token| token.content.clone())
        .collect();
    for number in (0..count).filter(|number| !known.contains(&name(*number))) {
        let gap = AddedToken {
            lstrip: true,
            rstrip: true,
            ..AddedToken::plain(name(number), true)
        };
        settings
            .numbered
            .entry((pieces + count - 1 - number) as u64)
            .or_insert(gap);
    }
}

/// Puts the added tokens into the table of pieces and lists them with their ids.
fn added_tokens(
    pieces: &mut Vec<Piece>,
    settings: &SlowSettings,
) -> Result<Vec<(TokenId, AddedToken)>, TokenizerError> {
    const PLACE: &str = "the added tokens";
    let own = pieces.len();
    let mut added: Vec<(TokenId, AddedToken)> = Vec::new();
    let mut add = |id: usize, token: &AddedToken, pieces: &mut Vec<Piece>| {
        let known = pieces.get(id).filter(|piece| !piece.text.is_empty());
        if let Some(known) = known.filter(|known| known.text != token.content) {
            let expected = format!("'{}', as in the model", known.text);
            return Err(malformed(
                FILE,
                format!("{PLACE}, id {id}"),
                &token.content,
                expected,
            ));
        }
        let kind = match known {
            Some(known) if known.kind == PieceKind::Unknown => PieceKind::Unknown,
            _ if token.special => PieceKind::Control,
            Some(_) => PieceKind::Added,
            None => PieceKind::Word,
        };
        place(FILE, pieces, id as u64, Piece::new(&token.content, kind))?;
        let id = TokenId::try_from(id).map_err(|e| malformed(FILE, PLACE, e, "an id"))?;
        added.push((id, token.clone()));
        Ok(())
    };
    for (id, token) in &settings.numbered {
        let id = usize::try_from(*id).map_err(|e| malformed(FILE, PLACE, e, "an id"))?;
        add(id, token, pieces)?;
    }
    let numbered = settings.numbered.values().map(|token| token.content.as_str());
    let mut seen: std::collections::HashSet<&str> = numbered.collect();
    let counted = |pieces: &[Piece]| pieces.iter().filter(|piece| !piece.text.is_empty()).count();
    // Those that are new are numbered from the count of all tokens on, as `transformers` does.
    let mut next = counted(pieces);
    for token in settings
        .specials
        .iter()
        .filter(|token| seen.insert(&token.content))
    {
        let known = pieces
            .iter()
            .take(own)
            .position(|piece| piece.text == token.content);
        if known.is_none() {
            next += 1;
        }
        add(known.unwrap_or(next - 1), token, pieces)?;
    }
    Ok(added)
}
