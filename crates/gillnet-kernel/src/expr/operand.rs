//! What a compute function receives: a column, an intermediate array, or a constant.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, Datum, PrimitiveArray, StringArray};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::compute::take;
use arrow::datatypes::DataType;

use crate::Result;

/// One argument at evaluation. A scalar is an array of one row that stands for every row.
pub enum Operand<'a> {
    Column(&'a ArrayRef),
    Array(ArrayRef),
    Scalar(&'a ArrayRef),
}

/// The values of a primitive operand: one a row, or one for all.
#[derive(Clone, Copy)]
pub enum Values<'a, T> {
    Rows(&'a [T]),
    One(T),
}

impl Operand<'_> {
    pub fn array(&self) -> &ArrayRef {
        match self {
            Self::Column(array) | Self::Scalar(array) => array,
            Self::Array(array) => array,
        }
    }

    pub fn is_scalar(&self) -> bool {
        matches!(self, Self::Scalar(_))
    }

    /// The validity of the rows. None for a scalar: a null constant never reaches a function that passes nulls on.
    pub fn nulls(&self) -> Option<&NullBuffer> {
        if self.is_scalar() {
            None
        } else {
            self.array().nulls()
        }
    }

    pub fn primitive<T: ArrowPrimitiveType>(&self) -> &PrimitiveArray<T> {
        self.array().as_primitive::<T>()
    }

    pub fn values<T: ArrowPrimitiveType>(&self) -> Values<'_, T::Native> {
        let values = self.primitive::<T>().values();
        if self.is_scalar() {
            Values::One(values[0])
        } else {
            Values::Rows(values)
        }
    }

    pub fn boolean(&self) -> &BooleanArray {
        self.array().as_boolean()
    }

    pub fn string(&self) -> &StringArray {
        self.array().as_string::<i32>()
    }

    /// One row a row: repeat a scalar, share everything else.
    pub fn broadcast(self, rows: usize) -> Result<ArrayRef> {
        match self {
            Self::Array(array) => Ok(array),
            Self::Column(array) => Ok(Arc::clone(array)),
            Self::Scalar(array) => {
                let zeros = PrimitiveArray::<arrow::datatypes::UInt32Type>::from_value(0, rows);
                Ok(take(array.as_ref(), &zeros, None)?)
            }
        }
    }
}

impl Datum for Operand<'_> {
    fn get(&self) -> (&dyn Array, bool) {
        (self.array().as_ref(), self.is_scalar())
    }
}

/// Apply a function to two operands row by row; the loop for each pairing of rows and constant is compiled apart.
#[inline]
pub fn map2<A: Copy, B: Copy, O>(left: Values<A>, right: Values<B>, f: impl Fn(A, B) -> O) -> Vec<O> {
    match (left, right) {
        (Values::Rows(a), Values::Rows(b)) => a.iter().zip(b).map(|(&a, &b)| f(a, b)).collect(),
        (Values::Rows(a), Values::One(b)) => a.iter().map(|&a| f(a, b)).collect(),
        (Values::One(a), Values::Rows(b)) => b.iter().map(|&b| f(a, b)).collect(),
        (Values::One(a), Values::One(b)) => vec![f(a, b)],
    }
}

/// As `map2`, for a predicate: one bit a row.
#[inline]
pub fn test2<A: Copy, B: Copy>(left: Values<A>, right: Values<B>, f: impl Fn(A, B) -> bool) -> BooleanBuffer {
    match (left, right) {
        (Values::Rows(a), Values::Rows(b)) => {
            let b = &b[..a.len()];
            BooleanBuffer::collect_bool(a.len(), |i| f(a[i], b[i]))
        }
        (Values::Rows(a), Values::One(b)) => BooleanBuffer::collect_bool(a.len(), |i| f(a[i], b)),
        (Values::One(a), Values::Rows(b)) => BooleanBuffer::collect_bool(b.len(), |i| f(a, b[i])),
        (Values::One(a), Values::One(b)) => BooleanBuffer::collect_bool(1, |_| f(a, b)),
    }
}

/// Make an array of a primitive type whose Arrow type carries a parameter (a scale, a time zone).
pub fn primitive_array<T: ArrowPrimitiveType>(
    values: Vec<T::Native>,
    nulls: Option<NullBuffer>,
    data_type: &DataType,
) -> ArrayRef {
    let array = PrimitiveArray::<T>::new(values.into(), nulls);
    if array.data_type() == data_type {
        return Arc::new(array);
    }
    Arc::new(array.with_data_type(data_type.clone()))
}
