//! The compiled form: a tree of arrays, constants and compute functions with every type resolved.

use std::sync::Arc;

use arrow::array::{make_array, Array, ArrayRef};

use super::operand::Operand;
use crate::Result;

/// Compute functions over operands of which at least one has rows. `ComputeN` is also told the number of rows.
pub type Compute1 = Box<dyn Fn(&Operand) -> Result<ArrayRef> + Send + Sync>;
pub type Compute2 = Box<dyn Fn(&Operand, &Operand) -> Result<ArrayRef> + Send + Sync>;
pub type ComputeN = Box<dyn Fn(&[Operand], usize) -> Result<ArrayRef> + Send + Sync>;

/// One node. Calls with one and two arguments have their own form, so that they need no argument list on the heap.
pub enum Node {
    Column(usize),
    /// An array of one row that stands for every row.
    Constant(ArrayRef),
    Call1(Compute1, Box<Node>),
    Call2(Compute2, Box<[Node; 2]>),
    CallN(ComputeN, Vec<Node>),
}

impl Node {
    pub fn evaluate<'a>(&'a self, columns: &'a [ArrayRef], rows: usize) -> Result<Operand<'a>> {
        Ok(match self {
            Self::Column(index) => Operand::Column(&columns[*index]),
            Self::Constant(array) => Operand::Scalar(array),
            Self::Call1(compute, argument) => Operand::Array(compute(&argument.evaluate(columns, rows)?)?),
            Self::Call2(compute, arguments) => {
                let [left, right] = arguments.as_ref();
                Operand::Array(compute(&left.evaluate(columns, rows)?, &right.evaluate(columns, rows)?)?)
            }
            Self::CallN(compute, arguments) => {
                let mut operands = Vec::with_capacity(arguments.len());
                for argument in arguments {
                    operands.push(argument.evaluate(columns, rows)?);
                }
                Operand::Array(compute(&operands, rows)?)
            }
        })
    }

    /// Evaluate a call whose arguments are all constants, as a batch of one row.
    pub fn fold(self) -> Result<Self> {
        let row = |node: &Node| match node {
            Node::Constant(array) => Some(Arc::clone(array)),
            _ => None,
        };
        let Some(arguments) = self.arguments().iter().map(row).collect::<Option<Vec<_>>>() else { return Ok(self) };
        let operands: Vec<_> = arguments.iter().map(Operand::Column).collect();
        Ok(match &self {
            Self::Call1(compute, _) => constant(compute(&operands[0])?)?,
            Self::Call2(compute, _) => constant(compute(&operands[0], &operands[1])?)?,
            Self::CallN(compute, _) => constant(compute(&operands, 1)?)?,
            Self::Column(_) | Self::Constant(_) => self,
        })
    }

    pub fn is_null_constant(&self) -> bool {
        matches!(self, Self::Constant(array) if array.is_null(0))
    }

    pub fn arguments(&self) -> &[Node] {
        match self {
            Self::Column(_) | Self::Constant(_) => &[],
            Self::Call1(_, argument) => std::slice::from_ref(argument),
            Self::Call2(_, arguments) => arguments.as_ref(),
            Self::CallN(_, arguments) => arguments,
        }
    }

    pub fn collect_columns(&self, indices: &mut Vec<usize>) {
        if let Self::Column(index) = self {
            indices.push(*index);
        }
        for argument in self.arguments() {
            argument.collect_columns(indices);
        }
    }
}

/// A constant has a validity buffer only if it is null: functions tell a null constant by that.
fn constant(array: ArrayRef) -> Result<Node> {
    if array.null_count() > 0 || array.nulls().is_none() {
        return Ok(Node::Constant(array));
    }
    Ok(Node::Constant(make_array(array.to_data().into_builder().nulls(None).build()?)))
}
