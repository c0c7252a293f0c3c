//! Selection of the vector instruction set at run time: AVX-512, AVX2 with FMA, NEON, or the target's baseline.
//!
//! The environment variable `CLIPWISE_ISA` forces one, for tests and bug reports.

use std::sync::OnceLock;

use super::lanes::Lanes;

/// An operation that is compiled for every [`Isa`].
pub trait SimdOp {
    type Output;
    /// Mark implementations, and everything they call, `#[inline(always)]`.
    fn run<L: Lanes>(self) -> Self::Output;
}

/// An instruction set that this machine has. Only [`Isa::available`] creates values other than `Portable`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Isa(Kind);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
    Neon,
    Portable,
}

impl Isa {
    /// The best available instruction set, or the one that `CLIPWISE_ISA` names. The variable is read once. If it names
    /// none that is available, a note goes to standard error.
    #[inline]
    pub fn best() -> Self {
        static BEST: OnceLock<Isa> = OnceLock::new();
        *BEST.get_or_init(|| {
            let forced = std::env::var_os("CLIPWISE_ISA").unwrap_or_default();
            Self::named(&forced.to_string_lossy()).unwrap_or_else(|names| {
                eprintln!("CLIPWISE_ISA: expected {names}, got {forced:?}; the best of these is used");
                Self::available()[0]
            })
        })
    }

    /// The name that `CLIPWISE_ISA` takes.
    pub fn name(self) -> String {
        format!("{:?}", self.0).to_lowercase()
    }

    /// The available instruction set called `name`, the best for an empty name; otherwise the names of all.
    fn named(name: &str) -> Result<Self, String> {
        let available = Self::available();
        let names: Vec<String> = available.iter().map(|isa| isa.name()).collect();
        match names.iter().position(|isa| name.is_empty() || isa == name) {
            Some(i) => Ok(available[i]),
            None => Err(names.join(" or ")),
        }
    }

    pub(super) fn kind(self) -> Kind {
        self.0
    }

    /// All available instruction sets, the best first.
    pub fn available() -> Vec<Self> {
        let mut available = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            if super::avx512::is_available() {
                available.push(Self(Kind::Avx512));
            }
            if super::avx2::is_available() {
                available.push(Self(Kind::Avx2));
            }
        }
        #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
        available.push(Self(Kind::Neon));
        available.push(Self(Kind::Portable));
        available
    }

    /// Runs `op` compiled for this instruction set.
    #[inline]
    pub fn run<O: SimdOp>(self, op: O) -> O::Output {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => super::avx512::run(op),
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => super::avx2::run(op),
            #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
            Kind::Neon => op.run::<super::neon::Register>(),
            Kind::Portable => op.run::<super::portable::Portable>(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instruction_set_is_found_by_its_name() {
        let available = Isa::available();
        assert_eq!(Isa::named(""), Ok(available[0]));
        assert_eq!(Isa::named("portable"), Ok(Isa(Kind::Portable)));
        let names = Isa::named("sse9").unwrap_err();
        let found: Vec<Isa> = names.split(" or ").map(|name| Isa::named(name).unwrap()).collect();
        assert_eq!(found, available);
    }
}
