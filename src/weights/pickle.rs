//! A pickle machine that runs nothing.
//!
//! Follows the opcodes of protocols 0–5 (CPython's `Lib/pickletools.py`). A name of a class or function is only ever a
//! name: calling one gives a tensor for the few of [`super::torch_names`], and an empty object for all others, which
//! swallows whatever the pickle puts into it.
//!
//! Values are small and `Copy`; containers lie in one arena and refer to each other by index, so neither a million
//! nested lists nor a list that contains itself can exhaust the stack, on reading or on dropping. Text stays in the
//! file. What a pickle may build is limited by [`MAX_VALUES`].

use super::bytes::Fault;
use super::torch_names::{self, Call, Name, StoredTensor};

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

struct Input<'a> {
    unread: &'a [u8],
    /// More was to be read than there is.
    exhausted: bool,
}

type Step<T> = Result<T, String>;

impl<'a> Input<'a> {
    fn take(&mut self, len: usize) -> Step<&'a [u8]> {
        let Some((taken, rest)) = self.unread.split_at_checked(len) else { return self.ends("it ends too early") };
        self.unread = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Step<[u8; N]> {
        let Some((taken, rest)) = self.unread.split_first_chunk() else { return self.ends("it ends too early") };
        self.unread = rest;
        Ok(*taken)
    }

    fn ends<T>(&mut self, reason: &str) -> Step<T> {
        self.exhausted = true;
        Err(reason.to_owned())
    }

    fn byte(&mut self) -> Step<u8> {
        self.array().map(|[byte]| byte)
    }

    /// A little-endian length of `N` bytes.
    fn length<const N: usize>(&mut self) -> Step<usize> {
        let mut wide = [0; 8];
        wide[..N].copy_from_slice(&self.array::<N>()?);
        usize::try_from(u64::from_le_bytes(wide)).map_err(|e| e.to_string())
    }

    /// Bytes after a length of `N` bytes.
    fn counted<const N: usize>(&mut self) -> Step<&'a [u8]> {
        let len = self.length::<N>()?;
        self.take(len)
    }

    fn line(&mut self) -> Step<&'a [u8]> {
        let Some(len) = self.unread.iter().position(|&byte| byte == b'\n') else {
            return self.ends("a line has no end");
        };
        let line = self.take(len)?;
        self.take(1)?;
        Ok(line)
    }
}

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

    /// One instruction; the value at the end of the pickle.
    fn step(&mut self, input: &mut Input<'a>) -> Step<Option<Value<'a>>> {
        match input.byte()? {
            b'.' => return self.pop().map(Some),
            0x80 => drop(input.byte()?),       // PROTO
            0x95 => drop(input.array::<8>()?), // FRAME: a hint for buffering
            b'(' => {
                self.charge(1)?;
                self.marks.push(self.stack.len());
            }
            b'0' => self.discard()?,
            b'1' => drop(self.pop_to_mark()?),
            b'2' => {
                let top = self.top()?;
                self.push(top)?;
            }

            // Constants.
            b'N' => self.push(Value::None)?,
            0x88 => self.push(Value::Bool(true))?,
            0x89 => self.push(Value::Bool(false))?,
            b'I' => match input.line()? {
                b"00" => self.push(Value::Bool(false))?,
                b"01" => self.push(Value::Bool(true))?,
                digits => self.push(decimal(digits))?,
            },
            b'L' => {
                let digits = input.line()?;
                self.push(decimal(digits.strip_suffix(b"L").unwrap_or(digits)))?;
            }
            b'K' => {
                let value = input.byte()?;
                self.push(Value::Int(value.into()))?;
            }
            b'M' => {
                let value = u16::from_le_bytes(input.array()?);
                self.push(Value::Int(value.into()))?;
            }
            b'J' => {
                let value = i32::from_le_bytes(input.array()?);
                self.push(Value::Int(value.into()))?;
            }
            0x8a => {
                let bytes = input.counted::<1>()?;
                self.push(two_complement(bytes))?;
            }
            0x8b => {
                let bytes = input.counted::<4>()?;
                self.push(two_complement(bytes))?;
            }
            b'F' => self.skip_and_push(input.line()?)?,
            b'G' => self.skip_and_push(input.take(8)?)?,

            // Text, of either Python; escapes of the line forms are left as they stand.
            b'S' => {
                let line = input.line()?;
                let quoted = line.len() >= 2 && matches!(line[0], b'\'' | b'"') && line[line.len() - 1] == line[0];
                self.push(Value::Text(if quoted { &line[1..line.len() - 1] } else { line }))?;
            }
            b'V' => self.push(Value::Text(input.line()?))?,
            b'U' | 0x8c => self.push(Value::Text(input.counted::<1>()?))?,
            b'T' | b'X' => self.push(Value::Text(input.counted::<4>()?))?,
            0x8d => self.push(Value::Text(input.counted::<8>()?))?,
            b'C' => self.skip_and_push(input.counted::<1>()?)?,
            b'B' => self.skip_and_push(input.counted::<4>()?)?,
            0x8e | 0x96 => self.skip_and_push(input.counted::<8>()?)?,

            // Containers.
            b')' | b']' | 0x8f => self.build(Node::Sequence(Vec::new()))?,
            b't' | b'l' | 0x91 => {
                let values = self.pop_to_mark()?;
                self.sequence_of(values)?;
            }
            count @ 0x85..=0x87 => {
                let mut values = vec![Value::None; usize::from(count - 0x84)];
                for value in values.iter_mut().rev() {
                    *value = self.pop()?;
                }
                self.sequence_of(values)?;
            }
            b'a' => {
                let value = self.pop()?;
                self.append(&[value])?;
            }
            b'e' | 0x90 => {
                let values = self.pop_to_mark()?;
                self.append(&values)?;
            }
            b'}' => self.build(Node::Map { items: Vec::new(), state: Value::None })?,
            b'd' => {
                let values = self.pop_to_mark()?;
                self.build(Node::Map { items: Vec::new(), state: Value::None })?;
                self.set_items(&values)?;
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.set_items(&[key, value])?;
            }
            b'u' => {
                let values = self.pop_to_mark()?;
                self.set_items(&values)?;
            }

            // The memo.
            b'p' => match decimal(input.line()?) {
                Value::Int(index) => self.memoise(usize::try_from(index).map_err(|e| e.to_string())?)?,
                _ => return Err("a memo index is not a number".to_owned()),
            },
            b'q' => self.memoise(input.byte()?.into())?,
            b'r' => self.memoise(input.length::<4>()?)?,
            0x94 => self.memoise(self.n_memoised)?,
            b'g' => match decimal(input.line()?) {
                Value::Int(index) => self.recall(usize::try_from(index).map_err(|e| e.to_string())?)?,
                _ => return Err("a memo index is not a number".to_owned()),
            },
            b'h' => self.recall(input.byte()?.into())?,
            b'j' => self.recall(input.length::<4>()?)?,

            // Names and calls.
            b'c' => {
                let (module, name) = (input.line()?, input.line()?);
                self.push(Value::Name(Name::find(module, name)))?;
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (Value::Text(module), Value::Text(name)) = (module, name) else {
                    return Err("a name is not text".to_owned());
                };
                self.push(Value::Name(Name::find(module, name)))?;
            }
            0x82 => self.skip_and_push(input.take(1)?)?, // EXT1, 2, 4: names by number
            0x83 => self.skip_and_push(input.take(2)?)?,
            0x84 => self.skip_and_push(input.take(4)?)?,
            b'R' | 0x81 => {
                let (arguments, callee) = (self.pop()?, self.pop()?);
                self.call(callee, arguments)?;
            }
            0x92 => {
                self.discard()?;
                let (arguments, callee) = (self.pop()?, self.pop()?);
                self.call(callee, arguments)?;
            }
            b'o' => {
                self.pop_to_mark()?;
                self.object()?;
            }
            b'i' => {
                input.line()?;
                input.line()?;
                self.pop_to_mark()?;
                self.object()?;
            }
            b'b' => {
                let new_state = self.pop()?;
                if let Value::Node(index) = self.top()?
                    && let Some(Node::Map { state, .. }) = self.nodes.get_mut(index)
                {
                    *state = new_state;
                }
            }
            b'P' => self.skip_and_push(input.line()?)?,
            b'Q' => {
                let id = self.pop()?;
                match torch_names::storage(self, id)? {
                    Some(storage) => self.build(Node::Storage(storage))?,
                    None => self.push(Value::Opaque)?,
                }
            }
            opcode => return Err(format!("there is no instruction {opcode:#04x} in a checkpoint")),
        }
        Ok(None)
    }

    /// Calls nothing: makes a tensor, unwraps a wrapper, or makes an object that stands for any result.
    fn call(&mut self, callee: Value<'a>, arguments: Value<'a>) -> Step<()> {
        match torch_names::call(self, callee, arguments)? {
            Call::Value(value) => self.push(value),
            Call::Tensor(tensor) => {
                self.charge(tensor.shape.len() + tensor.strides.len())?;
                self.build(Node::Tensor(Box::new(tensor)))
            }
            Call::Pairs(pairs) => {
                self.object()?;
                self.set_items(&pairs)
            }
            Call::Unknown => self.object(),
        }
    }

    fn object(&mut self) -> Step<()> {
        self.build(Node::Map { items: Vec::new(), state: Value::None })
    }

    fn skip_and_push(&mut self, _skipped: &[u8]) -> Step<()> {
        self.push(Value::Opaque)
    }

    fn build(&mut self, node: Node<'a>) -> Step<()> {
        self.charge(1)?;
        self.nodes.push(node);
        self.push(Value::Node(self.nodes.len() - 1))
    }

    fn sequence_of(&mut self, values: Vec<Value<'a>>) -> Step<()> {
        self.charge(values.len())?;
        self.build(Node::Sequence(values))
    }

    /// Appends to the list on top of the stack; other objects swallow the values.
    fn append(&mut self, values: &[Value<'a>]) -> Step<()> {
        self.charge(values.len())?;
        if let Value::Node(index) = self.top()?
            && let Some(Node::Sequence(list)) = self.nodes.get_mut(index)
        {
            list.extend_from_slice(values);
        }
        Ok(())
    }

    /// Adds keys and values, in turn, to the object on top of the stack.
    fn set_items(&mut self, keys_and_values: &[Value<'a>]) -> Step<()> {
        self.charge(keys_and_values.len())?;
        let (pairs, rest) = keys_and_values.as_chunks();
        if !rest.is_empty() {
            return Err("a key has no value".to_owned());
        }
        if let Value::Node(index) = self.top()?
            && let Some(Node::Map { items, .. }) = self.nodes.get_mut(index)
        {
            items.extend(pairs.iter().map(|&[key, value]| (key, value)));
        }
        Ok(())
    }

    fn memoise(&mut self, index: usize) -> Step<()> {
        self.charge(1)?;
        let top = self.top()?;
        // Picklers number consecutively, from 0 or 1.
        if index > self.n_values {
            return Err(format!("memo index {index} is out of order"));
        }
        if index >= self.memo.len() {
            self.memo.resize(index + 1, None);
        }
        self.n_memoised += usize::from(self.memo[index].is_none());
        self.memo[index] = Some(top);
        Ok(())
    }

    fn recall(&mut self, index: usize) -> Step<()> {
        let value = self.memo.get(index).copied().flatten();
        self.push(value.ok_or_else(|| format!("nothing was memoised as {index}"))?)
    }

    fn push(&mut self, value: Value<'a>) -> Step<()> {
        if self.stack.len() >= MAX_VALUES {
            return Err(format!("more than {MAX_VALUES} values on the stack"));
        }
        self.stack.push(value);
        Ok(())
    }

    fn charge(&mut self, n_values: usize) -> Step<()> {
        self.n_values = self.n_values.saturating_add(n_values);
        if self.n_values > MAX_VALUES {
            return Err(format!("more than {MAX_VALUES} values"));
        }
        Ok(())
    }

    /// The top of the stack above the last mark.
    fn top(&self) -> Step<Value<'a>> {
        let floor = self.marks.last().copied().unwrap_or(0);
        self.stack.get(floor..).and_then(<[_]>::last).copied().ok_or_else(|| "a value is missing".to_owned())
    }

    fn pop(&mut self) -> Step<Value<'a>> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    /// POP, which also takes a mark off where one lies on top.
    fn discard(&mut self) -> Step<()> {
        if self.marks.last() == Some(&self.stack.len()) {
            self.marks.pop();
            return Ok(());
        }
        self.pop().map(drop)
    }

    fn pop_to_mark(&mut self) -> Step<Vec<Value<'a>>> {
        let mark = self.marks.pop().ok_or("a mark is missing")?;
        Ok(self.stack.split_off(mark))
    }
}

fn decimal(digits: &[u8]) -> Value<'static> {
    if digits == torch_names::LEGACY_MAGIC_DECIMAL {
        return Value::Name(Name::LegacyMagic);
    }
    let number = std::str::from_utf8(digits).ok().and_then(|text| text.trim().parse().ok());
    number.map_or(Value::Opaque, Value::Int)
}

/// A signed integer of any length; those beyond 64 bits are opaque.
fn two_complement(bytes: &[u8]) -> Value<'static> {
    if bytes == torch_names::LEGACY_MAGIC {
        return Value::Name(Name::LegacyMagic);
    }
    if bytes.len() > 8 {
        return Value::Opaque;
    }
    let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
    let mut wide = [if negative { 0xff } else { 0 }; 8];
    wide[..bytes.len()].copy_from_slice(bytes);
    Value::Int(i64::from_le_bytes(wide))
}
