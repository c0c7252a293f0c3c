//! A pickle machine that executes no code.
//!
//! It follows the opcodes of protocols 0–5 (CPython's `Lib/pickletools.py`). Classes and functions are names only:
//! calling one of the few in [`super::torch_names`] gives a tensor, and calling any other gives an empty object that
//! accepts whatever the pickle puts into it.
//!
//! Values are small and `Copy`. Containers are in one arena and refer to each other by index, so that neither a million
//! nested lists nor a list that contains itself can overflow the call stack, when reading or dropping. Text stays in
//! the input buffer. [`MAX_VALUES`] limits what a pickle may build.

mod input;
mod opcode;
mod stack;
mod step;

use super::bytes::Fault;
use super::torch_names::{self, Name, StoredTensor};
use input::Input;

/// Limit on the values on the stack, and on the values in containers and the memo: less than 1 GB of memory.
const MAX_VALUES: usize = 1 << 23;

#[derive(Debug, Clone, Copy)]
pub(super) enum Value<'a> {
    None,
    Bool(bool),
    Int(i64),
    Text(&'a [u8]),
    Name(Name),
    /// Index into [`Machine::nodes`].
    Node(usize),
    /// A value that no tensor depends on: floats, wide integers, bytes.
    Opaque,
}

#[derive(Debug)]
pub(super) enum Node<'a> {
    /// A tuple, list or set.
    Sequence(Vec<Value<'a>>),
    /// A dictionary or any other object.
    Map {
        items: Vec<(Value<'a>, Value<'a>)>,
        /// The argument of BUILD, from which attributes are set.
        state: Value<'a>,
    },
    Storage(Storage<'a>),
    Tensor(Box<StoredTensor<'a>>),
}

/// A typed array of elements outside the pickle.
#[derive(Debug, Clone, Copy)]
pub(super) struct Storage<'a> {
    pub(super) element: torch_names::Element,
    pub(super) key: &'a [u8],
    /// Length in elements.
    pub(super) len: usize,
    /// Index of the first element, if the storage is a view of the one with this key.
    pub(super) skip: usize,
}

/// The result of running a pickle.
#[derive(Default)]
pub(super) struct Machine<'a> {
    pub(super) nodes: Vec<Node<'a>>,
    stack: Vec<Value<'a>>,
    marks: Vec<usize>,
    memo: Vec<Option<Value<'a>>>,
    n_memoised: usize,
    /// Number of values put into containers and the memo.
    n_values: usize,
}

type Step<T> = Result<T, String>;

impl<'a> Machine<'a> {
    /// Runs the pickle at the beginning of `bytes`. Returns the machine, the pickle's value, and the bytes after the
    /// pickle.
    ///
    /// # Errors
    /// [`Fault::CutShort`] if the pickle continues beyond `bytes`, otherwise [`Fault::Damaged`].
    pub(super) fn run(bytes: &'a [u8]) -> Result<(Self, Value<'a>, &'a [u8]), Fault> {
        let mut machine = Self::default();
        let mut input = Input { unread: bytes, exhausted: false };
        loop {
            let at = bytes.len() - input.unread.len();
            match machine.step(&mut input) {
                Ok(None) => {}
                Ok(Some(value)) => return Ok((machine, value, input.unread)),
                Err(reason) => {
                    let reason = format!("damaged pickle at byte {at}: {reason}");
                    return Err(if input.exhausted { Fault::CutShort(reason) } else { Fault::Damaged(reason) });
                }
            }
        }
    }

    pub(super) fn node(&self, value: Value) -> Option<&Node<'a>> {
        match value {
            Value::Node(index) => self.nodes.get(index),
            _ => None,
        }
    }

    /// The elements of a tuple or list.
    pub(super) fn sequence(&self, value: Value) -> Option<&[Value<'a>]> {
        match self.node(value)? {
            Node::Sequence(values) => Some(values),
            _ => None,
        }
    }

    /// The items of a dictionary or object.
    pub(super) fn items(&self, value: Value) -> Option<&[(Value<'a>, Value<'a>)]> {
        match self.node(value)? {
            Node::Map { items, .. } => Some(items),
            _ => None,
        }
    }
}
