//! Which variables and fields a text refers to, from its syntax tree.

use std::collections::{BTreeMap, BTreeSet};

use rhai::{AST, ASTFlags, ASTNode, Expr, FnCallExpr, FnPtr, Position, Stmt};

/// A variable and the fields of it that a text names, as far as they are written out.
///
/// `steps.list.tables[0].name` and `steps["list"].tables.len()` refer to `steps` with the paths
/// `list, tables, 0, name` and `list, tables`. A path ends at a method or at a computed key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// The variable.
    pub root: String,
    /// The fields, from the outside in.
    pub path: Vec<String>,
}

impl std::fmt::Display for Reference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.root)?;
        self.path.iter().try_for_each(|name| {
            if name.bytes().all(|byte| byte.is_ascii_digit()) {
                write!(f, "[{name}]")
            } else {
                write!(f, ".{name}")
            }
        })
    }
}

/// A reference and where each of its fields is written.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) reference: Reference,
    /// Where the variable is written.
    position: Position,
    pub(super) positions: Vec<Position>,
}

/// Finds the references of a text to the variables `known`, in the order of writing.
pub(super) fn find(ast: &AST, known: &[&str]) -> Vec<Found> {
    let declared = declared(ast);
    let mut found = Vec::new();
    ast.walk(&mut |path: &[ASTNode<'_>]| {
        if let Some((name, has_index)) = variable(path)
            && known.contains(&name)
            && !(has_index && declared.contains(name))
        {
            // A closure receives the variables that it captures, and its body names their fields.
            // Only where some local has the same name, the body is in doubt.
            if !captured(path) || declared.contains(name) {
                found.push(reference(name, path));
            }
        }
        true
    });
    // The bodies of functions come last, in no order.
    found.sort_by_key(|found| (found.position.line(), found.position.position()));
    found
}

/// Finds the first call of a function that neither the engine nor the text itself has.
pub(super) fn unknown_function(ast: &AST, engine: &BTreeSet<String>) -> Option<(String, Position)> {
    let mut own: BTreeSet<String> =
        ast.iter_functions().map(|function| function.name.to_owned()).collect();
    let mut unknown: Vec<(String, Position)> = Vec::new();
    ast.walk(&mut |path: &[ASTNode<'_>]| {
        match path.last() {
            Some(
                ASTNode::Expr(Expr::FnCall(call, position) | Expr::MethodCall(call, position))
                | ASTNode::Stmt(Stmt::FnCall(call, position)),
            ) if call.op_token.is_none()
                && !engine.contains(call.name.as_str())
                && curried_closure(call).is_none() =>
            {
                unknown.push((call.name.to_string(), *position));
            }
            // A closure in a field is called like a method.
            Some(ASTNode::Expr(Expr::Map(map, _))) => {
                own.extend(map.0.iter().map(|(field, _)| field.name.to_string()));
            }
            _ => {}
        }
        true
    });
    unknown.retain(|(name, _)| !own.contains(name));
    unknown.into_iter().min_by_key(|(_, position)| (position.line(), position.position()))
}

/// Finds all variables and fields that one expression reads, locals included.
pub(super) fn find_in(expression: &Expr) -> Vec<Found> {
    let mut found = Vec::new();
    expression.walk(&mut Vec::new(), &mut |path: &[ASTNode<'_>]| {
        if let Some((name, _)) = variable(path) {
            found.push(reference(name, path));
        }
        true
    });
    found
}

/// How deep the syntax tree is.
pub(super) fn depth(ast: &AST) -> usize {
    let mut depth = 0;
    ast.walk(&mut |path: &[ASTNode<'_>]| {
        depth = depth.max(path.len());
        true
    });
    depth
}

/// Whether evaluating the text may take more than a walk over its tree: loops, calls of its own
/// functions, closures.
pub(super) fn is_heavy(ast: &AST) -> bool {
    ast.has_functions()
        || !ast.walk(&mut |path: &[ASTNode<'_>]| {
            !matches!(
                path.last(),
                Some(ASTNode::Stmt(Stmt::While(..) | Stmt::Do(..) | Stmt::For(..)))
            )
        })
}

/// The names that the text declares itself, anywhere.
fn declared(ast: &AST) -> BTreeSet<String> {
    let mut declared = BTreeSet::new();
    let mut captures: BTreeMap<String, usize> = BTreeMap::new();
    ast.walk(&mut |path: &[ASTNode<'_>]| {
        match path.last() {
            Some(ASTNode::Stmt(Stmt::Var(var, ..))) => {
                declared.insert(var.0.name.to_string());
            }
            Some(ASTNode::Stmt(Stmt::For(parts, _))) => {
                declared.insert(parts.0.name.to_string());
                declared.extend(parts.1.as_ref().map(|counter| counter.name.to_string()));
            }
            Some(ASTNode::Stmt(Stmt::TryCatch(flow, _))) => {
                if let Expr::Variable(name, ..) = &flow.expr {
                    declared.insert(name.1.to_string());
                }
            }
            Some(ASTNode::Expr(Expr::FnCall(call, _))) => {
                if let Some(closure) = curried_closure(call) {
                    captures.insert(closure, call.args.len() - 1);
                }
            }
            _ => {}
        }
        true
    });
    for function in ast.iter_functions() {
        let captured = captures.get(function.name).copied().unwrap_or(0);
        declared.extend(function.params.iter().skip(captured).map(|name| (*name).to_owned()));
    }
    declared
}

/// The variable that a walk stands on, and whether the parser found it among the locals.
fn variable<'a>(path: &[ASTNode<'a>]) -> Option<(&'a str, bool)> {
    let Some(ASTNode::Expr(Expr::Variable(parts, index, _))) = path.last() else { return None };
    let is_catch = matches!(parent(path), Some(ASTNode::Stmt(Stmt::TryCatch(..))));
    let qualified = !parts.2.is_empty();
    (!is_catch && !qualified).then(|| (parts.1.as_str(), index.is_some() || parts.0.is_some()))
}

fn parent<'a, 'p>(path: &'p [ASTNode<'a>]) -> Option<&'p ASTNode<'a>> {
    path.len().checked_sub(2).and_then(|at| path.get(at))
}

/// The anonymous function that a call binds captured variables to.
fn curried_closure(call: &FnCallExpr) -> Option<String> {
    match call.args.first() {
        Some(Expr::DynamicConstant(function, _)) if call.name == "curry" => {
            let function = function.read_lock::<FnPtr>()?;
            function.is_anonymous().then(|| function.fn_name().to_owned())
        }
        _ => None,
    }
}

fn captured(path: &[ASTNode<'_>]) -> bool {
    matches!(parent(path), Some(ASTNode::Expr(Expr::FnCall(call, _)))
        if curried_closure(call).is_some())
}

fn reference(name: &str, path: &[ASTNode<'_>]) -> Found {
    let reference = Reference { root: name.to_owned(), path: Vec::new() };
    let mut found = Found { reference, position: Position::NONE, positions: Vec::new() };
    let Some(ASTNode::Expr(variable)) = path.last() else { return found };
    found.position = variable.start_position();
    if let Some(ASTNode::Expr(parent @ (Expr::Dot(parts, flags, _) | Expr::Index(parts, flags, _)))) =
        parent(path)
        && std::ptr::eq(&raw const parts.lhs, &raw const **variable)
    {
        descend(is_dot(parent), *flags, &parts.rhs, &mut found);
    }
    found
}

fn is_dot(expression: &Expr) -> bool {
    matches!(expression, Expr::Dot(..))
}

/// Follows a chain of fields, which the parser nests to the right.
fn descend(dot: bool, flags: ASTFlags, rhs: &Expr, found: &mut Found) {
    if let Expr::Dot(parts, inner, _) | Expr::Index(parts, inner, _) = rhs
        && !flags.contains(ASTFlags::BREAK)
    {
        if field(dot, &parts.lhs, found) {
            descend(is_dot(rhs), *inner, &parts.rhs, found);
        }
    } else {
        field(dot, rhs, found);
    }
}

fn field(dot: bool, expression: &Expr, found: &mut Found) -> bool {
    let name = match expression {
        Expr::Property(parts, _) if dot => parts.2.to_string(),
        Expr::StringConstant(name, _) if !dot => name.to_string(),
        Expr::IntegerConstant(index, _) if !dot && *index >= 0 => index.to_string(),
        _ => return false,
    };
    found.reference.path.push(name);
    found.positions.push(expression.start_position());
    true
}
