//! A task as a function of SQL, on a folder of Parquet files, in DataFusion.
//!
//! ```text
//! cargo run --release --manifest-path examples/datafusion/Cargo.toml -- IN_FOLDER OUT_FOLDER
//! ```
//!
//! The column `image` has the bytes of pictures. What is written has all columns, and `answer`, with the text
//! or the reason why there is none: a picture that cannot be read is no failure of the query.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use datafusion::arrow::array::{Array, ArrayRef, AsArray as _, StringArray, StructArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, Fields};
use datafusion::dataframe::DataFrameWriteOptions;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::async_udf::{AsyncScalarUDF, AsyncScalarUDFImpl};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};
use datafusion::prelude::{ParquetReadOptions, SessionContext};
use futures_util::{StreamExt as _, stream};
use multiway::task::{TaskInputs, TaskLibrary};
use multiway::{Engine, Task, embedded_checkpoint};

/// Pictures that are decoded or answered at a time in one partition; the engine makes batches of them.
const AT_A_TIME: usize = 64;

/// The task `caption` as a function of one picture. All partitions share its engine.
#[derive(Debug)]
struct Caption {
    engine: Engine,
    task: Arc<Task>,
    signature: Signature,
}

impl PartialEq for Caption {
    fn eq(&self, other: &Self) -> bool {
        self.task.name() == other.task.name()
    }
}

impl Eq for Caption {}

impl Hash for Caption {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.task.name().hash(state);
    }
}

impl Caption {
    fn open() -> Result<Self> {
        let checkpoint = embedded_checkpoint()?;
        let task = TaskLibrary::for_model(checkpoint.config())?
            .get("caption")?
            .clone();
        Ok(Self {
            engine: Engine::builder(&checkpoint).build()?,
            task: Arc::new(task),
            signature: Signature::any(1, Volatility::Stable),
        })
    }

    /// Captions the picture of a row.
    async fn answer(&self, file: Option<Vec<u8>>) -> Result<String> {
        let file = file.context("there is no picture")?;
        let processor = self.task.image_processor(self.engine.config());
        let image = tokio::task::spawn_blocking(move || processor.process(&file)).await??;
        let run = self
            .task
            .run(&self.engine, &TaskInputs::new().with_image(image))?;
        Ok(run.wait().await?.answer.text().unwrap_or_default().to_owned())
    }
}

/// The fields of an answer, of which a row has one.
fn fields() -> Fields {
    let field = |name: &str| Field::new(name, DataType::Utf8, true);
    vec![field("text"), field("error")].into()
}

impl ScalarUDFImpl for Caption {
    fn name(&self) -> &str {
        self.task.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> DataFusionResult<DataType> {
        Ok(DataType::Struct(fields()))
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        datafusion::common::not_impl_err!("{} is asynchronous", self.name())
    }
}

#[async_trait]
impl AsyncScalarUDFImpl for Caption {
    async fn invoke_async_with_args(&self, args: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        // Parquet is read into views.
        let files = cast(&arrays[0], &DataType::Binary)?;
        let files: Vec<Option<Vec<u8>>> = files
            .as_binary::<i32>()
            .iter()
            .map(|file| file.map(<[u8]>::to_vec))
            .collect();
        let answers = stream::iter(files)
            .map(|file| self.answer(file))
            .buffered(AT_A_TIME);
        let answers: Vec<Result<String>> = answers.collect().await;
        let texts = answers.iter().map(|answer| answer.as_ref().ok());
        let errors = answers
            .iter()
            .map(|answer| answer.as_ref().err().map(|error| format!("{error:#}")));
        let texts: ArrayRef = Arc::new(texts.collect::<StringArray>());
        let errors: ArrayRef = Arc::new(errors.collect::<StringArray>());
        let answers = StructArray::new(fields(), vec![texts, errors], None);
        Ok(ColumnarValue::Array(Arc::new(answers)))
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(source), Some(target)) = (arguments.next(), arguments.next()) else {
        anyhow::bail!(
            "expected two folders: one of Parquet files with a column `image`, and one to write to"
        );
    };
    let context = SessionContext::new();
    let caption = AsyncScalarUDF::new(Arc::new(Caption::open()?));
    context.register_udf(caption.into_scalar_udf());
    context
        .register_parquet("pictures", &source, ParquetReadOptions::default())
        .await?;

    let answered = context
        .sql("SELECT *, caption(image) AS answer FROM pictures")
        .await?;
    answered
        .write_parquet(&target, DataFrameWriteOptions::new(), None)
        .await?;

    context
        .register_parquet("answers", &target, ParquetReadOptions::default())
        .await?;
    let counts = "SELECT count(*) AS rows, count(get_field(answer, 'error')) AS bad FROM answers";
    context.sql(counts).await?.show().await?;
    Ok(())
}
