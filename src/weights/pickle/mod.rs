//! A pickle machine that runs nothing.
//!
//! Follows the opcodes of protocols 0–5 (CPython's `Lib/pickletools.py`). A name of a class or function is only ever a
//! name: calling one gives a tensor for the few of [`super::torch_names`], and an empty object for all others, which
//! swallows whatever the pickle puts into it.
//!
//! Values are small and `Copy`; containers lie in one arena and refer to each other by index, so neither a million
//! nested lists nor a list that contains itself can exhaust the stack, on reading or on dropping. Text stays in the
//! file. What a pickle may build is limited by [`MAX_VALUES`].

mod input;
mod opcode;
mod stack;
mod step;

use super::bytes::Fault;
use super::torch_names::{self, Name, StoredTensor};
use input::Input;

/// Values that may be put on the stack at once, into containers and into the memo, together: below 1 GB of memory.
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
    /// Anything that no checkpoint's tensors depend on: floats, wide integers, bytes.
    Opaque,
}

#[derive(Debug)]
pub(super) enum Node<'a> {
    /// A tuple, list or set.
    Sequence(Vec<Value<'a>>),
    /// A dictionary or any other object.
    Map {
        items: Vec<(Value<'a>, Value<'a>)>,
        /// What the object's attributes were set from.
        state: Value<'a>,
    },
    Storage(Storage<'a>),
    Tensor(Box<StoredTensor<'a>>),
}

/// A typed run of elements outside the pickle.
#[derive(Debug, Clone, Copy)]
pub(super) struct Storage<'a> {
    pub(super) element: torch_names::Element,
    pub(super) key: &'a [u8],
    /// In elements.
    pub(super) len: usize,
    /// First element, where the storage is a view of the one named `key`.
    pub(super) skip: usize,
}

/// What one pickle built.
#[derive(Default)]
pub(super) struct Machine<'a> {
    pub(super) nodes: Vec<Node<'a>>,
    stack: Vec<Value<'a>>,
    marks: Vec<usize>,
    memo: Vec<Option<Value<'a>>>,
    n_memoised: usize,
    /// Values put into containers and the memo.
    n_values: usize,
}

type Step<T> = Result<T, String>;

impl<'a> Machine<'a> {
    /// Runs the pickle at the start of `bytes`; the machine, the pickle's value, and what follows the pickle.
    ///
    /// # Errors
    /// [`Fault::CutShort`] if the pickle goes on after `bytes`, else [`Fault::Damaged`].
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
