//! The tree of a file's columns, and rows that are put together along it.

use std::ops::Range;

use parquet::basic::{ConvertedType, Repetition};
use parquet::schema::types::Type;
use serde_json::Value;

use super::cell::Cell;
use super::column::Column;

/// A column, or a group of columns.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) name: String,
    /// The definition level from which it is there.
    definition: i16,
    /// The columns in it, at least one.
    leaves: Range<usize>,
    shape: Shape,
}

#[derive(Debug)]
enum Shape {
    Leaf,
    Group(Vec<Node>),
    List(Box<Node>, i16),
    Map(Box<Node>, i16),
}

/// The levels of the groups around a column, and how many columns are before it.
#[derive(Debug, Clone, Copy)]
struct Place {
    definition: i16,
    repetition: i16,
}

/// Bounds what a row may have.
#[derive(Debug)]
pub(super) struct RowBudget {
    pub(super) values: usize,
    pub(super) bytes: u64,
    pub(super) limit: u64,
}

impl RowBudget {
    fn take(&mut self, cell: &Cell) -> Result<(), String> {
        let bytes = match cell {
            Cell::Value(Value::String(text)) => text.len(),
            Cell::Bytes(bytes) => bytes.len(),
            _ => 0,
        };
        self.bytes = self.bytes.checked_sub(bytes as u64).ok_or_else(|| {
            let limit = self.limit;
            format!("a record has more than {limit} bytes")
        })?;
        Ok(())
    }

    fn count(&mut self) -> Result<(), String> {
        let left = self.values.checked_sub(1);
        self.values = left.ok_or_else(|| "a record has too many values".to_owned())?;
        Ok(())
    }
}

/// Builds the trees of the fields of a schema.
///
/// # Errors
///
/// When a group has no columns.
pub(super) fn fields(schema: &Type) -> Result<Vec<Node>, String> {
    let place = Place {
        definition: 0,
        repetition: 0,
    };
    let mut leaf = 0;
    let fields = schema.get_fields().iter();
    fields.map(|field| Node::new(field, place, &mut leaf)).collect()
}

impl Node {
    fn new(field: &Type, mut place: Place, leaf: &mut usize) -> Result<Self, String> {
        match field.get_basic_info().repetition() {
            Repetition::REQUIRED => Self::required(field, place, leaf),
            Repetition::OPTIONAL => {
                place.definition += 1;
                Self::required(field, place, leaf)
            }
            // A list without a group around it, which is never null.
            Repetition::REPEATED => {
                let first = *leaf;
                let inner = place.repeated();
                let item = Self::required(field, inner, leaf)?;
                Ok(Self {
                    name: field.name().to_owned(),
                    definition: place.definition,
                    leaves: first..*leaf,
                    shape: Shape::List(Box::new(item), inner.repetition),
                })
            }
        }
    }

    /// Builds a field whose own repetition is in `place` already.
    fn required(field: &Type, place: Place, leaf: &mut usize) -> Result<Self, String> {
        let first = *leaf;
        let shape = if field.is_primitive() {
            *leaf += 1;
            Shape::Leaf
        } else {
            Self::group(field, place, leaf)?
        };
        if first == *leaf {
            return Err(format!("the group '{}' has no columns", field.name()));
        }
        Ok(Self {
            name: field.name().to_owned(),
            definition: place.definition,
            leaves: first..*leaf,
            shape,
        })
    }

    fn group(field: &Type, place: Place, leaf: &mut usize) -> Result<Shape, String> {
        let kind = field.get_basic_info().converted_type();
        let repeated = match field.get_fields() {
            [only] if only.get_basic_info().repetition() == Repetition::REPEATED => Some(only),
            _ => None,
        };
        let inner = place.repeated();
        match (kind, repeated) {
            (ConvertedType::LIST, Some(repeated)) => {
                let item = match repeated.is_group().then(|| repeated.get_fields()) {
                    Some([item]) if !is_item(repeated) => Self::new(item, inner, leaf)?,
                    _ => Self::required(repeated, inner, leaf)?,
                };
                Ok(Shape::List(Box::new(item), inner.repetition))
            }
            (ConvertedType::MAP | ConvertedType::MAP_KEY_VALUE, Some(repeated)) => {
                let item = Self::required(repeated, inner, leaf)?;
                Ok(Shape::Map(Box::new(item), inner.repetition))
            }
            _ => {
                let members = field.get_fields().iter();
                let members: Result<_, _> = members.map(|member| Self::new(member, place, leaf)).collect();
                Ok(Shape::Group(members?))
            }
        }
    }

    /// Puts the value of a row together from its columns.
    ///
    /// # Errors
    ///
    /// When the row is too large, or its columns do not fit together.
    pub(super) fn read(&self, columns: &mut [Column], budget: &mut RowBudget) -> Result<Cell, String> {
        budget.count()?;
        if self.next(columns)? < self.definition {
            self.pass(columns)?;
            return Ok(Cell::Value(Value::Null));
        }
        match &self.shape {
            Shape::Leaf => {
                let cell = self.take(columns, self.leaves.start)?;
                budget.take(&cell)?;
                Ok(cell)
            }
            Shape::Group(members) => {
                let cells = members.iter();
                let cells = cells.map(|member| Ok((member.name.clone(), member.read(columns, budget)?)));
                Ok(Cell::Group(cells.collect::<Result<_, String>>()?))
            }
            Shape::List(item, level) => Ok(Cell::List(self.items(item, *level, columns, budget)?)),
            Shape::Map(item, level) => Ok(Cell::Map(self.items(item, *level, columns, budget)?)),
        }
    }

    fn items(
        &self,
        item: &Self,
        level: i16,
        columns: &mut [Column],
        budget: &mut RowBudget,
    ) -> Result<Vec<Cell>, String> {
        // An item that is optional itself may be null; the list is empty below the level of its items.
        if self.next(columns)? <= self.definition {
            self.pass(columns)?;
            return Ok(Vec::new());
        }
        let mut items = Vec::new();
        loop {
            items.push(item.read(columns, budget)?);
            match columns.get(self.leaves.start) {
                Some(column) if !column.is_over() && column.repetition() >= level => {}
                _ => return Ok(items),
            }
        }
    }

    /// Returns the definition level of what is next in the first of the columns.
    fn next(&self, columns: &[Column]) -> Result<i16, String> {
        let column = columns.get(self.leaves.start);
        column.and_then(Column::definition).ok_or_else(|| self.uneven())
    }

    fn take(&self, columns: &mut [Column], leaf: usize) -> Result<Cell, String> {
        let taken = columns.get_mut(leaf).and_then(Column::take);
        taken.ok_or_else(|| self.uneven())?
    }

    fn pass(&self, columns: &mut [Column]) -> Result<(), String> {
        for leaf in self.leaves.clone() {
            self.take(columns, leaf)?;
        }
        Ok(())
    }

    fn uneven(&self) -> String {
        format!("the columns of '{}' do not fit together", self.name)
    }
}

impl Place {
    /// Returns the levels of the items of a list that is here.
    fn repeated(self) -> Self {
        Self {
            definition: self.definition + 1,
            repetition: self.repetition + 1,
        }
    }
}

/// Tells whether the repeated group of a list is its item, as some have written lists, and not around it.
///
/// Source: <https://github.com/apache/parquet-format/blob/master/LogicalTypes.md#backward-compatibility-rules>
fn is_item(repeated: &Type) -> bool {
    let is_list = repeated.get_basic_info().converted_type() == ConvertedType::LIST;
    let holds_list = match repeated.get_fields() {
        [only] => only.get_basic_info().repetition() == Repetition::REPEATED,
        _ => false,
    };
    if is_list || holds_list {
        return false;
    }
    repeated.name() == "array" || repeated.name().ends_with("_tuple")
}
