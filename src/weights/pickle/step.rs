//! Execution of single opcodes.

use super::input::{Input, decimal, two_complement};
use super::{Machine, Node, Step, Value, opcode};
use crate::weights::torch_names::{self, Call, Name};

impl<'a> Machine<'a> {
    /// Executes one opcode. Returns the value at the end of the pickle.
    pub(super) fn step(&mut self, input: &mut Input<'a>) -> Step<Option<Value<'a>>> {
        match input.byte()? {
            opcode::STOP => return self.pop().map(Some),
            opcode::PROTO => drop(input.byte()?),
            opcode::FRAME => drop(input.array::<8>()?), // a hint for buffering
            opcode::MARK => {
                self.charge(1)?;
                self.marks.push(self.stack.len());
            }
            opcode::POP => self.discard()?,
            opcode::POP_MARK => drop(self.pop_to_mark()?),
            opcode::DUP => {
                let top = self.top()?;
                self.push(top)?;
            }

            // Constants.
            opcode::NONE => self.push(Value::None)?,
            opcode::NEWTRUE => self.push(Value::Bool(true))?,
            opcode::NEWFALSE => self.push(Value::Bool(false))?,
            opcode::INT => match input.line()? {
                b"00" => self.push(Value::Bool(false))?,
                b"01" => self.push(Value::Bool(true))?,
                digits => self.push(decimal(digits))?,
            },
            opcode::LONG => {
                let digits = input.line()?;
                self.push(decimal(digits.strip_suffix(b"L").unwrap_or(digits)))?;
            }
            opcode::BININT1 => {
                let value = input.byte()?;
                self.push(Value::Int(value.into()))?;
            }
            opcode::BININT2 => {
                let value = u16::from_le_bytes(input.array()?);
                self.push(Value::Int(value.into()))?;
            }
            opcode::BININT => {
                let value = i32::from_le_bytes(input.array()?);
                self.push(Value::Int(value.into()))?;
            }
            opcode::LONG1 => {
                let bytes = input.counted::<1>()?;
                self.push(two_complement(bytes))?;
            }
            opcode::LONG4 => {
                let bytes = input.counted::<4>()?;
                self.push(two_complement(bytes))?;
            }
            opcode::FLOAT => self.skip_and_push(input.line()?)?,
            opcode::BINFLOAT => self.skip_and_push(input.take(8)?)?,

            // Text of Python 2 and 3. Escape sequences in the line-based forms are not decoded.
            opcode::STRING => {
                let line = input.line()?;
                let quoted = line.len() >= 2 && matches!(line[0], b'\'' | b'"') && line[line.len() - 1] == line[0];
                self.push(Value::Text(if quoted { &line[1..line.len() - 1] } else { line }))?;
            }
            opcode::UNICODE => self.push(Value::Text(input.line()?))?,
            opcode::SHORT_BINSTRING | opcode::SHORT_BINUNICODE => self.push(Value::Text(input.counted::<1>()?))?,
            opcode::BINSTRING | opcode::BINUNICODE => self.push(Value::Text(input.counted::<4>()?))?,
            opcode::BINUNICODE8 => self.push(Value::Text(input.counted::<8>()?))?,
            opcode::SHORT_BINBYTES => self.skip_and_push(input.counted::<1>()?)?,
            opcode::BINBYTES => self.skip_and_push(input.counted::<4>()?)?,
            opcode::BINBYTES8 | opcode::BYTEARRAY8 => self.skip_and_push(input.counted::<8>()?)?,

            // Containers.
            opcode::EMPTY_TUPLE | opcode::EMPTY_LIST | opcode::EMPTY_SET => self.build(Node::Sequence(Vec::new()))?,
            opcode::TUPLE | opcode::LIST | opcode::FROZENSET => {
                let values = self.pop_to_mark()?;
                self.sequence_of(values)?;
            }
            count @ opcode::TUPLE1..=opcode::TUPLE3 => {
                let mut values = vec![Value::None; usize::from(count - opcode::TUPLE1 + 1)];
                for value in values.iter_mut().rev() {
                    *value = self.pop()?;
                }
                self.sequence_of(values)?;
            }
            opcode::APPEND => {
                let value = self.pop()?;
                self.append(&[value])?;
            }
            opcode::APPENDS | opcode::ADDITEMS => {
                let values = self.pop_to_mark()?;
                self.append(&values)?;
            }
            opcode::EMPTY_DICT => self.build(Node::Map { items: Vec::new(), state: Value::None })?,
            opcode::DICT => {
                let values = self.pop_to_mark()?;
                self.build(Node::Map { items: Vec::new(), state: Value::None })?;
                self.set_items(&values)?;
            }
            opcode::SETITEM => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.set_items(&[key, value])?;
            }
            opcode::SETITEMS => {
                let values = self.pop_to_mark()?;
                self.set_items(&values)?;
            }

            // The memo.
            opcode::PUT => match decimal(input.line()?) {
                Value::Int(index) => self.memoise(usize::try_from(index).map_err(|e| e.to_string())?)?,
                _ => return Err("expected a number as memo index".to_owned()),
            },
            opcode::BINPUT => self.memoise(input.byte()?.into())?,
            opcode::LONG_BINPUT => self.memoise(input.length::<4>()?)?,
            opcode::MEMOIZE => self.memoise(self.n_memoised)?,
            opcode::GET => match decimal(input.line()?) {
                Value::Int(index) => self.recall(usize::try_from(index).map_err(|e| e.to_string())?)?,
                _ => return Err("expected a number as memo index".to_owned()),
            },
            opcode::BINGET => self.recall(input.byte()?.into())?,
            opcode::LONG_BINGET => self.recall(input.length::<4>()?)?,

            // Names and calls.
            opcode::GLOBAL => {
                let (module, name) = (input.line()?, input.line()?);
                self.push(Value::Name(Name::find(module, name)))?;
            }
            opcode::STACK_GLOBAL => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (Value::Text(module), Value::Text(name)) = (module, name) else {
                    return Err("expected text as the name of a class or function".to_owned());
                };
                self.push(Value::Name(Name::find(module, name)))?;
            }
            opcode::EXT1 => self.skip_and_push(input.take(1)?)?, // a name given by a registered number
            opcode::EXT2 => self.skip_and_push(input.take(2)?)?,
            opcode::EXT4 => self.skip_and_push(input.take(4)?)?,
            opcode::REDUCE | opcode::NEWOBJ => {
                let (arguments, callee) = (self.pop()?, self.pop()?);
                self.call(callee, arguments)?;
            }
            opcode::NEWOBJ_EX => {
                self.discard()?;
                let (arguments, callee) = (self.pop()?, self.pop()?);
                self.call(callee, arguments)?;
            }
            opcode::OBJ => {
                self.pop_to_mark()?;
                self.object()?;
            }
            opcode::INST => {
                input.line()?;
                input.line()?;
                self.pop_to_mark()?;
                self.object()?;
            }
            opcode::BUILD => {
                let new_state = self.pop()?;
                if let Value::Node(index) = self.top()?
                    && let Some(Node::Map { state, .. }) = self.nodes.get_mut(index)
                {
                    *state = new_state;
                }
            }
            opcode::PERSID => self.skip_and_push(input.line()?)?,
            opcode::BINPERSID => {
                let id = self.pop()?;
                match torch_names::storage(self, id)? {
                    Some(storage) => self.build(Node::Storage(storage))?,
                    None => self.push(Value::Opaque)?,
                }
            }
            opcode => return Err(format!("unsupported opcode {opcode:#04x}")),
        }
        Ok(None)
    }

    /// Calls nothing: builds a tensor, unwraps a wrapper, or creates an object that stands for any other result.
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
}
