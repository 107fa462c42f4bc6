//! What the fuzz target holds any text to holds for answers of every kind, whole, cut and joined.

mod invariants {
    pub(crate) mod answers;
}

const ANSWERS: [&str; 10] = [
    "<loc0001><loc0002><loc0003><loc0004><seg001> 猫 ; <loc0500>",
    "قطة<loc_0><loc_1><loc_2><loc_3><loc_9999>",
    "<extra_id_200><extra_id_1199><extra_id_1200><extra_id_300> dog",
    "<grounding><phrase>a</phrase><object><patch_index_0000><patch_index_1023></object>",
    "TITLE | t <0x0A> a | b <0x0A> 1 | \"2\",",
    "two hundred and five million",
    "दो लाख पाँच हज़ार",
    "1億2000万",
    "-1.234,5",
    "a, b,, a",
];

#[test]
fn answers_of_every_kind_hold_what_any_text_holds() {
    for (index, answer) in ANSWERS.iter().enumerate() {
        for end in 0..=answer.len() {
            invariants::answers::check(&answer.as_bytes()[..end]);
        }
        let next = ANSWERS[(index + 1) % ANSWERS.len()];
        invariants::answers::check(format!("{answer}{next}").repeat(9).as_bytes());
    }
    invariants::answers::check("<loc_1>".repeat(20_000).as_bytes());
    invariants::answers::check("hundred".repeat(30).as_bytes());
}
