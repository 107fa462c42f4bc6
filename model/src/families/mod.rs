//! Model families: each a conversion of its `config.json` and a table of weight names, for the same layers.

pub mod beit3;
pub(crate) mod multiway;
pub mod t5;
