//! All mutants of a source file, found in its syntax tree.
//!
//! Owns where mistakes may stand: not in tests, patterns, types, constants, macros (but
//! `matches!`), text for people, nor where mistakes are planted already (`shared::planted`).

use crate::operators::{self, Operator};
use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use syn::visit::{self, Visit};

/// What a mutant is called: it stays the same when lines move and other functions change.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Id {
    /// The file.
    pub file: String,
    /// The function, behind its type.
    pub function: String,
    /// The kind of mistake.
    pub operator: Operator,
    /// The text that is mutated, without its line breaks.
    pub before: String,
    /// What stands for it.
    pub after: String,
    /// Which one it is of those of the same function that are equal in all this, from 0.
    #[serde(default)]
    pub nth: usize,
}

#[cfg(test)]
impl Id {
    /// One of a file, for tests that look at nothing else of it.
    pub(crate) fn of(file: &str, nth: usize) -> Self {
        Self {
            file: file.to_owned(),
            function: "f".to_owned(),
            operator: Operator::Logic,
            before: "a && b".to_owned(),
            after: "a || b".to_owned(),
            nth,
        }
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (file, function, operator) = (&self.file, &self.function, self.operator.name());
        write!(
            f,
            "{file} {function} {operator}: {} => {}",
            self.before, self.after
        )?;
        match self.nth {
            0 => Ok(()),
            nth => write!(f, " #{nth}"),
        }
    }
}

/// A part of a mutated text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// New text.
    Text(String),
    /// What stands there in the source.
    Source(Range<usize>),
}

/// How a mutant changes the source. The ranges are in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// The expression at this place is another one.
    Instead(Range<usize>, Vec<Piece>),
    /// The statement at this place is left out.
    Without(Range<usize>),
    /// The function whose body begins here returns this text at once.
    Return(usize, &'static str),
    /// The arm whose pattern ends here does not match.
    NoMatch(usize),
}

impl Edit {
    /// The place that it needs for itself; what is mutated within it is mutated in both versions.
    #[must_use]
    pub fn site(&self) -> Range<usize> {
        match self {
            Self::Instead(site, _) | Self::Without(site) => site.clone(),
            Self::Return(at, _) | Self::NoMatch(at) => *at..*at,
        }
    }
}

/// A mutant.
#[derive(Debug, Clone)]
pub struct Mutant {
    /// What it is called.
    pub id: Id,
    /// Where it is now.
    pub line: usize,
    /// What it does.
    pub edit: Edit,
}

impl Mutant {
    /// The number of its switch. It follows from the name, so that the copy changes only where
    /// mutants come and go, and little is compiled again. Two of one number would be on together;
    /// of 10,000 in one copy it takes 2 % that there are any.
    #[must_use]
    pub fn number(&self) -> u32 {
        let hash = blake3::hash(self.id.to_string().as_bytes());
        let [a, b, c, d, ..] = *hash.as_bytes();
        // the highest numbers mean something else to the switch
        u32::from_le_bytes([a, b, c, d]) >> 1
    }
}

/// What a file has: its mutants, and where its tests stand.
#[derive(Debug, Default)]
pub struct Found {
    /// The mutants, in the order of the text.
    pub mutants: Vec<Mutant>,
    /// The parts of the text that are compiled for tests only.
    pub tests: Vec<Range<usize>>,
}

/// The mutants of a file.
///
/// # Errors
///
/// Where it is not Rust.
pub fn in_file(file: &str, source: &str) -> Result<Found> {
    let tree = syn::parse_file(source).with_context(|| format!("{file} cannot be parsed"))?;
    let mut finder = Finder {
        file,
        source,
        scope: Vec::new(),
        found: Found::default(),
    };
    finder.visit_file(&tree);
    let mut found = finder.found;
    found
        .mutants
        .sort_by_key(|one| (one.edit.site().start, one.edit.site().end));
    let mut seen: BTreeMap<Id, usize> = BTreeMap::new();
    for mutant in &mut found.mutants {
        let count = seen.entry(mutant.id.clone()).or_default();
        mutant.id.nth = *count;
        *count += 1;
    }
    Ok(found)
}

struct Finder<'a> {
    file: &'a str,
    source: &'a str,
    scope: Vec<String>,
    found: Found,
}

/// Longest text of a name.
const NAME_MAX: usize = 100;

impl Finder<'_> {
    /// The text at a place, in one line, shortened.
    fn text(&self, range: Range<usize>) -> String {
        let words: Vec<&str> = self.source[range].split_whitespace().collect();
        let text = words.join(" ");
        match text.char_indices().nth(NAME_MAX) {
            Some((end, _)) => format!("{}…", &text[..end]),
            None => text,
        }
    }

    fn add(&mut self, operator: Operator, before: String, after: String, edit: Edit) {
        let start = edit.site().start;
        let line = self.source[..start].matches('\n').count() + 1;
        let (file, function) = (self.file.to_owned(), self.scope.join("::"));
        let id = Id {
            file,
            function,
            operator,
            before,
            after,
            nth: 0,
        };
        self.found.mutants.push(Mutant { id, line, edit });
    }

    /// Another expression instead of the one at `site`.
    fn instead(&mut self, operator: Operator, site: Range<usize>, pieces: Vec<Piece>) {
        let after: Vec<String> = pieces
            .iter()
            .map(|piece| match piece {
                Piece::Text(text) => text.clone(),
                Piece::Source(range) => self.text(range.clone()),
            })
            .collect();
        let before = self.text(site.clone());
        self.add(
            operator,
            before,
            after.concat(),
            Edit::Instead(site, pieces),
        );
    }

    /// The opposite of a condition, where no other mistake makes it.
    fn condition(&mut self, condition: &syn::Expr) {
        let covered = match condition {
            syn::Expr::Binary(binary) => !operators::of_binary(&binary.op).is_empty(),
            syn::Expr::Unary(unary) => matches!(unary.op, syn::UnOp::Not(_)),
            syn::Expr::Paren(_) | syn::Expr::Lit(_) | syn::Expr::Macro(_) => true,
            _ => has_let(condition),
        };
        if !covered && !is_planted(condition) {
            self.negated(condition);
        }
    }

    fn negated(&mut self, condition: &syn::Expr) {
        let site = range(condition);
        let pieces = vec![
            Piece::Text("!(".to_owned()),
            Piece::Source(site.clone()),
            Piece::Text(")".to_owned()),
        ];
        self.instead(Operator::Negation, site, pieces);
    }

    fn function(&mut self, name: String, signature: &syn::Signature, body: &syn::Block) {
        // the switch cannot be read where the compiler evaluates
        if signature.constness.is_some() {
            return;
        }
        self.scope.push(name);
        let planted = body.stmts.len() == 1
            && matches!(&body.stmts[0], syn::Stmt::Expr(only, _) if is_planted(only));
        if !body.stmts.is_empty() && !planted && signature.ident != "default" {
            let plain = match &signature.output {
                syn::ReturnType::Default => &[""],
                syn::ReturnType::Type(_, ty) => operators::of_type(ty),
            };
            let at = body.brace_token.span.open().byte_range().end;
            let inner = self.text(at..body.brace_token.span.close().byte_range().start);
            for value in plain {
                // what it does anyway is no mistake
                if inner != *value {
                    let after = format!("return {value}").trim_end().to_owned();
                    let edit = Edit::Return(at, value);
                    self.add(Operator::Return, "the whole body".to_owned(), after, edit);
                }
            }
        }
        visit::visit_block(self, body);
        self.scope.pop();
    }

    fn integer(&mut self, literal: &syn::LitInt) {
        let Ok(value) = literal.base10_parse::<u128>() else {
            return;
        };
        let site = literal.span().byte_range();
        let suffix = literal.suffix();
        let more = value.checked_add(1);
        for other in more.into_iter().chain(value.checked_sub(1)) {
            let piece = Piece::Text(format!("{other}{suffix}"));
            self.instead(Operator::Constant, site.clone(), vec![piece]);
        }
    }

    fn deleted(&mut self, statement: &syn::Stmt) {
        let syn::Stmt::Expr(expression, Some(_)) = statement else {
            return;
        };
        let (inner, fails) = match expression {
            syn::Expr::Try(tried) if tried.attrs.is_empty() => (&*tried.expr, true),
            other => (other, false),
        };
        let does = match inner {
            syn::Expr::Call(call) => call.attrs.is_empty(),
            syn::Expr::MethodCall(call) => call.attrs.is_empty(),
            syn::Expr::Assign(assign) => assign.attrs.is_empty(),
            syn::Expr::Binary(binary) => {
                operators::of_binary(&binary.op)
                    .iter()
                    .any(|(_, to)| to.ends_with("-="))
                    || matches!(binary.op, syn::BinOp::SubAssign(_))
            }
            _ => false,
        };
        if !does || is_planted(inner) {
            return;
        }
        let site = range(statement);
        let before = self.text(site.clone());
        self.add(
            Operator::Deletion,
            before,
            "nothing".to_owned(),
            Edit::Without(site),
        );
        if fails {
            let pieces = vec![
                Piece::Text("drop(".to_owned()),
                Piece::Source(range(inner)),
                Piece::Text(")".to_owned()),
            ];
            self.instead(Operator::Error, range(expression), pieces);
        }
    }

    fn is_test(
        &mut self,
        attributes: &[syn::Attribute],
        item: &impl syn::spanned::Spanned,
    ) -> bool {
        let test = attributes.iter().any(|attribute| {
            let path = attribute.path();
            let only = path.is_ident("cfg")
                && matches!(&attribute.meta, syn::Meta::List(list)
                    if list.tokens.to_string().starts_with("test"));
            only || path.is_ident("test")
        });
        if test {
            self.found.tests.push(item.span().byte_range());
        }
        test
    }

    fn arms(&mut self, node: &syn::ExprMatch) {
        let Some((last, others)) = node.arms.split_last() else {
            return;
        };
        let wildcard = matches!(last.pat, syn::Pat::Wild(_)) && last.guard.is_none();
        for arm in others {
            if let Some((_, guard)) = &arm.guard {
                if has_let(guard) || is_planted(guard) {
                    continue;
                }
                for value in ["true", "false"] {
                    let piece = Piece::Text(value.to_owned());
                    self.instead(Operator::Guard, range(&**guard), vec![piece]);
                }
            } else if wildcard && self.text(range(&*arm.body)) != self.text(range(&*last.body)) {
                let before = self.text(range(&arm.pat));
                let edit = Edit::NoMatch(range(&arm.pat).end);
                self.add(Operator::Arm, before, "the wildcard's arm".to_owned(), edit);
            }
        }
    }
}

impl<'ast> Visit<'ast> for Finder<'_> {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        let attributes = match item {
            syn::Item::Fn(item) => &item.attrs,
            syn::Item::Impl(item) => &item.attrs,
            syn::Item::Mod(item) => &item.attrs,
            syn::Item::Use(item) => &item.attrs,
            syn::Item::Trait(item) => &item.attrs,
            _ => return,
        };
        if !self.is_test(attributes, item) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        self.scope.push(item.ident.to_string());
        visit::visit_item_mod(self, item);
        self.scope.pop();
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        self.scope.push(item.ident.to_string());
        visit::visit_item_trait(self, item);
        self.scope.pop();
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        let of = item
            .trait_
            .as_ref()
            .and_then(|(_, path, _)| path.segments.last());
        let text_only = of.is_some_and(|of| of.ident == "Debug" || of.ident == "Display");
        if !text_only {
            let ty = self.text(range(&*item.self_ty));
            self.scope.push(ty);
            visit::visit_item_impl(self, item);
            self.scope.pop();
        }
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.function(item.sig.ident.to_string(), &item.sig, &item.block);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if !self.is_test(&item.attrs, item) {
            self.function(item.sig.ident.to_string(), &item.sig, &item.block);
        }
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(body) = &item.default {
            self.function(item.sig.ident.to_string(), &item.sig, body);
        }
    }

    fn visit_stmt(&mut self, statement: &'ast syn::Stmt) {
        self.deleted(statement);
        visit::visit_stmt(self, statement);
    }

    fn visit_expr_binary(&mut self, node: &'ast syn::ExprBinary) {
        let (left, right) = (range(&*node.left), range(&*node.right));
        let hidden = has_let(&node.left)
            || has_let(&node.right)
            || is_planted(&node.left)
            || is_planted(&node.right);
        for (operator, other) in operators::of_binary(&node.op) {
            if !hidden {
                let pieces = vec![
                    Piece::Source(left.clone()),
                    Piece::Text(format!(" {other} ")),
                    Piece::Source(right.clone()),
                ];
                self.instead(*operator, range(node), pieces);
            }
        }
        visit::visit_expr_binary(self, node);
    }

    fn visit_expr_call(&mut self, node: &'ast syn::ExprCall) {
        // what is asked for a planted mistake is no code
        if !is_planted_call(node) {
            visit::visit_expr_call(self, node);
        }
    }

    fn visit_expr_unary(&mut self, node: &'ast syn::ExprUnary) {
        if matches!(node.op, syn::UnOp::Not(_)) && !is_planted(&node.expr) {
            let piece = Piece::Source(range(&*node.expr));
            self.instead(Operator::Negation, range(node), vec![piece]);
        }
        visit::visit_expr_unary(self, node);
    }

    fn visit_expr_if(&mut self, node: &'ast syn::ExprIf) {
        self.condition(&node.cond);
        if is_planted(&node.cond) {
            // what is planted stays asleep
            if let Some((_, other)) = &node.else_branch {
                self.visit_expr(other);
            }
            return;
        }
        visit::visit_expr_if(self, node);
    }

    fn visit_expr_while(&mut self, node: &'ast syn::ExprWhile) {
        self.condition(&node.cond);
        visit::visit_expr_while(self, node);
    }

    fn visit_expr_match(&mut self, node: &'ast syn::ExprMatch) {
        self.arms(node);
        visit::visit_expr_match(self, node);
    }

    fn visit_expr_method_call(&mut self, node: &'ast syn::ExprMethodCall) {
        let name = node.method.to_string();
        if let Some(other) = operators::of_method(&name) {
            let (site, method) = (range(node), node.method.span().byte_range());
            let pieces = vec![
                Piece::Source(site.start..method.start),
                Piece::Text(other.to_owned()),
                Piece::Source(method.end..site.end),
            ];
            self.instead(Operator::Method, site, pieces);
        }
        visit::visit_expr_method_call(self, node);
    }

    fn visit_expr_lit(&mut self, node: &'ast syn::ExprLit) {
        match &node.lit {
            syn::Lit::Int(literal) => self.integer(literal),
            syn::Lit::Bool(literal) => {
                let piece = Piece::Text((!literal.value).to_string());
                self.instead(Operator::Constant, range(node), vec![piece]);
            }
            _ => {}
        }
    }

    fn visit_expr_macro(&mut self, node: &'ast syn::ExprMacro) {
        if node.mac.path.is_ident("matches") {
            self.negated(&syn::Expr::Macro(node.clone()));
        }
    }

    fn visit_expr_repeat(&mut self, node: &'ast syn::ExprRepeat) {
        self.visit_expr(&node.expr);
    }

    // Where the switch cannot be read, or a name is no code.
    fn visit_attribute(&mut self, _: &'ast syn::Attribute) {}
    fn visit_type(&mut self, _: &'ast syn::Type) {}
    fn visit_path(&mut self, _: &'ast syn::Path) {}
    fn visit_pat(&mut self, _: &'ast syn::Pat) {}
    fn visit_expr_const(&mut self, _: &'ast syn::ExprConst) {}
    fn visit_item_const(&mut self, _: &'ast syn::ItemConst) {}
    fn visit_item_static(&mut self, _: &'ast syn::ItemStatic) {}
    fn visit_impl_item_const(&mut self, _: &'ast syn::ImplItemConst) {}
    fn visit_trait_item_const(&mut self, _: &'ast syn::TraitItemConst) {}
    fn visit_generics(&mut self, _: &'ast syn::Generics) {}
    fn visit_angle_bracketed_generic_arguments(
        &mut self,
        _: &'ast syn::AngleBracketedGenericArguments,
    ) {
    }
}

fn range(node: &impl syn::spanned::Spanned) -> Range<usize> {
    node.span().byte_range()
}

/// Whether a condition binds names: it cannot stand behind a switch.
fn has_let(node: &syn::Expr) -> bool {
    match node {
        syn::Expr::Let(_) => true,
        syn::Expr::Binary(binary) => has_let(&binary.left) || has_let(&binary.right),
        _ => false,
    }
}

/// Whether an expression asks for a planted mistake.
fn is_planted(node: &syn::Expr) -> bool {
    match node {
        syn::Expr::Call(call) => is_planted_call(call),
        syn::Expr::Unary(unary) => is_planted(&unary.expr),
        syn::Expr::Paren(inner) => is_planted(&inner.expr),
        syn::Expr::Binary(binary) if matches!(binary.op, syn::BinOp::And(_)) => {
            is_planted(&binary.left) || is_planted(&binary.right)
        }
        _ => false,
    }
}

fn is_planted_call(call: &syn::ExprCall) -> bool {
    let syn::Expr::Path(path) = &*call.func else {
        return false;
    };
    let first = path.path.segments.first();
    first.is_some_and(|one| one.ident == "planted")
}
