//! The kinds of mistakes. They are those of cargo-mutants and PIT, which follow the sufficient
//! operators of Offutt et al., "An Experimental Determination of Sufficient Mutant Operators"
//! (TOSEM 5(2), 1996).

use serde::{Deserialize, Serialize};
use syn::BinOp;

/// A kind of mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operator {
    /// `<` for `<=` and so on: the limit itself falls on the other side.
    Boundary,
    /// A comparison for its opposite.
    Comparison,
    /// `&&` for `||` and back.
    Logic,
    /// A condition for its opposite, a `!` left out.
    Negation,
    /// `+` for `-`, `*` for `/`, and so on.
    Arithmetic,
    /// A number that is one more or one less, the other truth value.
    Constant,
    /// A function that returns at once, with a plain value.
    Return,
    /// A call or an assignment that is left out.
    Deletion,
    /// A guard that always or never holds.
    Guard,
    /// An arm of a match that is left to the wildcard.
    Arm,
    /// An error that is passed over.
    Error,
    /// A method for its opposite: `min` for `max`, `any` for `all`.
    Method,
}

impl Operator {
    /// All of them, in the order of tables.
    pub const ALL: [Self; 12] = [
        Self::Boundary,
        Self::Comparison,
        Self::Logic,
        Self::Negation,
        Self::Arithmetic,
        Self::Constant,
        Self::Return,
        Self::Deletion,
        Self::Guard,
        Self::Arm,
        Self::Error,
        Self::Method,
    ];

    /// Its name in the ledger and in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Boundary => "boundary",
            Self::Comparison => "comparison",
            Self::Logic => "logic",
            Self::Negation => "negation",
            Self::Arithmetic => "arithmetic",
            Self::Constant => "constant",
            Self::Return => "return",
            Self::Deletion => "deletion",
            Self::Guard => "guard",
            Self::Arm => "arm",
            Self::Error => "error",
            Self::Method => "method",
        }
    }

    /// What it does, for the page.
    #[must_use]
    pub fn told(self) -> &'static str {
        match self {
            Self::Boundary => "`<` ↔ `<=`, `>` ↔ `>=`",
            Self::Comparison => "`==` ↔ `!=`, `<` ↔ `>=`, `>` ↔ `<=`",
            Self::Logic => "`&&` ↔ `||`",
            Self::Negation => "a condition negated, a `!` left out",
            Self::Arithmetic => {
                "`+` ↔ `-`, `*` ↔ `/`, `%` → `/`, `&` ↔ `\\|`, `<<` ↔ `>>`, also with `=`"
            }
            Self::Constant => "a number one more or one less, `true` ↔ `false`",
            Self::Return => {
                "a function returns at once: `true`, `false`, 0, 1, `None`, `Ok(())`, the default"
            }
            Self::Deletion => "a call or an assignment left out",
            Self::Guard => "a guard of a match that always or never holds",
            Self::Arm => "an arm of a match left to its wildcard",
            Self::Error => "`f()?;` that goes on after an error",
            Self::Method => "`min` ↔ `max`, `any` ↔ `all`, `is_some` ↔ `is_none` and the like",
        }
    }
}

/// What stands for a binary operator instead, by kind of mistake.
#[must_use]
pub fn of_binary(op: &BinOp) -> &'static [(Operator, &'static str)] {
    use Operator::{Arithmetic, Boundary, Comparison, Logic};
    match op {
        BinOp::Lt(_) => &[(Boundary, "<="), (Comparison, ">=")],
        BinOp::Le(_) => &[(Boundary, "<"), (Comparison, ">")],
        BinOp::Gt(_) => &[(Boundary, ">="), (Comparison, "<=")],
        BinOp::Ge(_) => &[(Boundary, ">"), (Comparison, "<")],
        BinOp::Eq(_) => &[(Comparison, "!=")],
        BinOp::Ne(_) => &[(Comparison, "==")],
        BinOp::And(_) => &[(Logic, "||")],
        BinOp::Or(_) => &[(Logic, "&&")],
        BinOp::Add(_) => &[(Arithmetic, "-")],
        BinOp::Sub(_) => &[(Arithmetic, "+")],
        BinOp::Mul(_) => &[(Arithmetic, "/")],
        BinOp::Div(_) => &[(Arithmetic, "*")],
        BinOp::Rem(_) => &[(Arithmetic, "/")],
        BinOp::BitAnd(_) => &[(Arithmetic, "|")],
        BinOp::BitOr(_) => &[(Arithmetic, "&")],
        BinOp::BitXor(_) => &[(Arithmetic, "&")],
        BinOp::Shl(_) => &[(Arithmetic, ">>")],
        BinOp::Shr(_) => &[(Arithmetic, "<<")],
        BinOp::AddAssign(_) => &[(Arithmetic, "-=")],
        BinOp::SubAssign(_) => &[(Arithmetic, "+=")],
        BinOp::MulAssign(_) => &[(Arithmetic, "/=")],
        BinOp::DivAssign(_) => &[(Arithmetic, "*=")],
        BinOp::BitOrAssign(_) => &[(Arithmetic, "&=")],
        BinOp::BitAndAssign(_) => &[(Arithmetic, "|=")],
        _ => &[],
    }
}

/// The method that means the opposite.
#[must_use]
pub fn of_method(name: &str) -> Option<&'static str> {
    const PAIRS: [(&str, &str); 8] = [
        ("min", "max"),
        ("any", "all"),
        ("is_some", "is_none"),
        ("is_ok", "is_err"),
        ("is_some_and", "is_none_or"),
        ("first", "last"),
        ("saturating_add", "saturating_sub"),
        ("min_by_key", "max_by_key"),
    ];
    let there = PAIRS
        .iter()
        .find(|(one, _)| *one == name)
        .map(|pair| pair.1);
    there.or_else(|| {
        PAIRS
            .iter()
            .find(|(_, other)| *other == name)
            .map(|pair| pair.0)
    })
}

/// The plain values that a function with this return type may give back.
#[must_use]
pub fn of_type(ty: &syn::Type) -> &'static [&'static str] {
    match ty {
        syn::Type::Tuple(tuple) if tuple.elems.is_empty() => &[""],
        syn::Type::Reference(to) => match &*to.elem {
            syn::Type::Path(path) if path.path.is_ident("str") && to.mutability.is_none() => {
                &["\"\""]
            }
            syn::Type::Slice(_) if to.mutability.is_none() => &["&[]"],
            _ => &[],
        },
        syn::Type::Path(path) => of_path(&path.path),
        syn::Type::Tuple(_) => &["Default::default()"],
        _ => &[],
    }
}

fn of_path(path: &syn::Path) -> &'static [&'static str] {
    let Some(last) = path.segments.last() else {
        return &[];
    };
    match last.ident.to_string().as_str() {
        "bool" => &["true", "false"],
        "u8" | "u16" | "u32" | "u64" | "u128" | "usize" | "i8" | "i16" | "i32" | "i64" | "i128"
        | "isize" => &["0", "1"],
        "Option" => &["None"],
        "Result" => match first_argument(last) {
            Some(syn::Type::Tuple(tuple)) if tuple.elems.is_empty() => &["Ok(())"],
            _ => &["Ok(Default::default())"],
        },
        _ => &["Default::default()"],
    }
}

fn first_argument(segment: &syn::PathSegment) -> Option<&syn::Type> {
    let syn::PathArguments::AngleBracketed(arguments) = &segment.arguments else {
        return None;
    };
    arguments.args.iter().find_map(|argument| match argument {
        syn::GenericArgument::Type(ty) => Some(ty),
        _ => None,
    })
}
