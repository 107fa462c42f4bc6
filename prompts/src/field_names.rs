//! The keys that a type is read from, as `serde` knows them.

use serde::de::value::Error;
use serde::de::{Deserialize, Deserializer, Error as _, Visitor};
use serde::forward_to_deserialize_any;

/// Lists the keys of a struct, or the variants of an enum, that derives `Deserialize`.
pub(crate) fn field_names<T: Deserialize<'static>>() -> &'static [&'static str] {
    let mut names: &[&str] = &[];
    // Always an error: there is nothing to read.
    let _ = T::deserialize(Asked { names: &mut names });
    names
}

/// Holds nothing, and notes what it is asked for.
struct Asked<'n> {
    names: &'n mut &'static [&'static str],
}

impl<'de> Deserializer<'de> for Asked<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        Err(Error::custom("nothing to read"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        *self.names = fields;
        self.deserialize_any(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        *self.names = variants;
        self.deserialize_any(visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::{BoxUnit, InputKind};
    use crate::sampling::SamplingOptions;

    #[test]
    fn keys_and_variants_are_those_that_are_written() {
        assert_eq!(field_names::<SamplingOptions>(), SamplingOptions::NAMES);
        assert_eq!(field_names::<BoxUnit>(), ["pixels", "fractions"]);
        let kinds = InputKind::ALL.map(|kind| kind.to_string());
        assert_eq!(field_names::<InputKind>(), kinds);
        assert!(field_names::<String>().is_empty());
    }
}
