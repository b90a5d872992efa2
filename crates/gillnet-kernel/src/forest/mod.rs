//! Gradient-boosted trees, evaluated exactly as XGBoost predicts them: the same 32 bits for every row.
//!
//! A model comes in as XGBoost's own JSON ([`Forest::from_json`]); rows come in as an Arrow record batch or as a
//! row-major `f32` matrix; scores go out. What makes the bits equal:
//!
//! 1. features are `f32` before any comparison; a null or NaN takes the split's default direction;
//! 2. the split is `x < threshold` on `f32` (see [`keys`] for why integers may be compared instead);
//! 3. the sum starts at the base margin and takes the leaves in the order of the trees, in `f32`;
//! 4. the sigmoid is XGBoost's formula in `f32`, with the platform's `expf`.
//!
//! What is not held to that (categorical splits, DART, linear boosters, several classes or targets, other objectives)
//! is refused by name, so that the caller scores such a model with XGBoost itself.
//!
//! ```text
//! JSON ─ model ─→ trees ─ layout ─→ groups of 8 trees ─ walk ─→ margins ─→ scores
//!                   │        columns: Arrow → f32 → keys ──┘
//!                   └── shap ─→ contributions (flagged rows only)
//! ```

mod columns;
mod keys;
mod layout;
mod model;
mod shap;
mod walk;

pub use columns::{feature_matrix, Binding, SCORE_COLUMN};
pub use model::Objective;

use std::sync::{Arc, OnceLock};

use arrow::array::{ArrayRef, Float32Array, RecordBatch};

use crate::error::{KernelError, Result};
use keys::KeyBlocks;
use layout::Group;
use model::Tree;
use shap::TreeShap;

/// Rows that go through the trees together: their keys (18 KB at 35 features) and one tree stay in the first-level cache.
const CHUNK_ROWS: usize = 64;

/// A model of gradient-boosted trees, laid out for evaluation. Immutable, so any number of threads may share it.
pub struct Forest {
    feature_names: Vec<String>,
    objective: Objective,
    base_margin: f32,
    trees: Vec<Tree>,
    groups: Vec<Group>,
    shap: OnceLock<TreeShap>,
}

impl Forest {
    /// Read a model in XGBoost's JSON schema (`booster.save_raw("json")`, XGBoost 1.6 to 3.x).
    ///
    /// `feature_names` are the columns of the rows, in the model's order. `rounds` keeps only the first boosting
    /// rounds, as early stopping wants; `None` keeps all.
    ///
    /// # Errors
    /// [`KernelError::Plan`] if the bytes are no such model, or if the model is of a kind that is not held to
    /// XGBoost's bits here.
    pub fn from_json(json: &[u8], feature_names: Vec<String>, rounds: Option<usize>) -> Result<Self> {
        let parsed = model::parse(json, &feature_names, rounds)?;
        let groups = layout::build_groups(&parsed.trees);
        Ok(Self {
            feature_names,
            objective: parsed.objective,
            base_margin: parsed.base_margin,
            trees: parsed.trees,
            groups,
            shap: OnceLock::new(),
        })
    }

    /// The columns that a row must have, in order.
    pub fn feature_names(&self) -> &[String] {
        &self.feature_names
    }

    /// The objective that the model was trained for.
    pub fn objective(&self) -> Objective {
        self.objective
    }

    /// How many trees a row walks.
    pub fn num_trees(&self) -> usize {
        self.trees.len()
    }

    /// Find the columns of `columns` in a schema, once for many batches.
    ///
    /// # Errors
    /// [`KernelError::Batch`] if a column is missing or is not a number.
    pub fn bind(&self, schema: &arrow::datatypes::SchemaRef, columns: &[String]) -> Result<Binding> {
        if columns.len() != self.feature_names.len() {
            return Err(KernelError::Batch(format!(
                "the model takes {} features, but {} columns are named",
                self.feature_names.len(),
                columns.len()
            )));
        }
        Binding::new(schema, columns)
    }

    /// Score every row of a batch whose schema `binding` was made for.
    ///
    /// # Errors
    /// [`KernelError::Batch`] if the batch is of another schema.
    pub fn predict(&self, binding: &Binding, batch: &RecordBatch) -> Result<Vec<f32>> {
        let columns = binding.open(batch)?;
        Ok(self.predict_chunks(batch.num_rows(), |start, blocks| columns.fill(start, blocks)))
    }

    /// Score a batch and append the scores as the Float32 column [`SCORE_COLUMN`].
    ///
    /// # Errors
    /// [`KernelError::Batch`] as [`Forest::predict`], or if the batch has a column of that name already.
    pub fn score(&self, binding: &Binding, batch: &RecordBatch) -> Result<RecordBatch> {
        let scores: ArrayRef = Arc::new(Float32Array::from(self.predict(binding, batch)?));
        binding.with_scores(batch, scores)
    }

    /// Score a row-major matrix with one column per feature.
    ///
    /// # Errors
    /// [`KernelError::Batch`] if the length is not a multiple of the number of features.
    pub fn predict_matrix(&self, matrix: &[f32]) -> Result<Vec<f32>> {
        let width = self.feature_names.len();
        let rows = self.rows_of(matrix)?;
        Ok(self.predict_chunks(rows, |start, blocks| {
            blocks.fill_rows(&matrix[start * width..(start + blocks.rows()) * width], width);
        }))
    }

    /// Attribute each row's margin to its features: exact path-dependent TreeSHAP.
    ///
    /// Returns a row-major matrix of (features + 1) columns; the last is the bias, and a row sums to its margin.
    ///
    /// # Errors
    /// [`KernelError::Batch`] as [`Forest::predict_matrix`]; [`KernelError::Plan`] if a path of the model splits on
    /// more features than the quadrature is exact for (32).
    pub fn contributions(&self, matrix: &[f32]) -> Result<Vec<f32>> {
        let rows = self.rows_of(matrix)?;
        let shap = match self.shap.get() {
            Some(shap) => shap,
            None => {
                let built = TreeShap::new(&self.trees, self.base_margin, self.feature_names.len())?;
                self.shap.get_or_init(|| built)
            }
        };
        Ok(shap.contributions(matrix, rows))
    }

    fn rows_of(&self, matrix: &[f32]) -> Result<usize> {
        let width = self.feature_names.len();
        if !matrix.len().is_multiple_of(width) {
            return Err(KernelError::Batch(format!("{} values do not make rows of {width} features", matrix.len())));
        }
        Ok(matrix.len() / width)
    }

    fn predict_chunks(&self, rows: usize, fill: impl Fn(usize, &mut KeyBlocks)) -> Vec<f32> {
        let mut scores = vec![self.base_margin; rows];
        let mut blocks = KeyBlocks::new(self.feature_names.len(), rows.min(CHUNK_ROWS));
        for (chunk, margins) in scores.chunks_mut(CHUNK_ROWS).enumerate() {
            blocks.set_rows(margins.len());
            fill(chunk * CHUNK_ROWS, &mut blocks);
            for group in &self.groups {
                walk::add_leaves(group, &blocks, margins);
            }
        }
        self.objective.transform(&mut scores);
        scores
    }
}
