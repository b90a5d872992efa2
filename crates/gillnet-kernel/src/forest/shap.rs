//! Exact path-dependent TreeSHAP by quadrature.
//!
//! Take one leaf of value v, and the features on its path. Let o be 1 if the row satisfies every split of a feature
//! on that path and 0 if not, and z the share of the training rows (by cover) that do. With each *other* feature j
//! known with probability t, the leaf is expected to give v·∏(t·o_j + (1−t)·z_j), and the Shapley value of feature i
//! is the mean over t in (0, 1) of what knowing i adds:
//!
//! ```text
//! φ_i = v · ∫₀¹ (o_i − z_i) · ∏_{j≠i} (t·o_j + (1−t)·z_j) dt
//! ```
//!
//! The integrand is a polynomial in t of degree (features on the path − 1), so Gauss–Legendre quadrature with Q points
//! is exact, not an approximation, up to 2Q features on a path. What depends on the row is only which of three states
//! an edge is in: the row *follows* it, *leaves* at it, or had *left* before, at an earlier split on the same feature.
//! All factors are therefore tables per edge and state, and a tree takes, for each of its edges:
//!
//! 1. down: D(child) = D(parent) · step(edge, state), the product along the path at the Q points;
//! 2. at a leaf: G = v · D;
//! 3. up: φ(feature of the edge) += G · gain(edge, state), and G(parent) += G(child).
//!
//! The gain of an edge takes back what the earlier edge on the same feature says of these leaves, so that only the
//! last edge on a feature counts. Cost: O(edges · Q) per row and tree, against O(leaves · depth²) of the algorithm
//! in the paper.
//!
//! References: Lundberg et al., "Consistent Individualized Feature Attribution for Tree Ensembles" (2018), algorithm 2;
//! Owen, "Multilinear Extensions of Games" (1972), for the integral.

use super::model::Tree;
use crate::error::{KernelError, Result};

/// Rows that go through one tree together, so that its tables (12 KB at depth 6) are read once.
const CHUNK_ROWS: usize = 32;
/// A child's least share of its parent's cover, as in XGBoost 3.3 and later: keeps refreshed trees out of 0/0.
const MIN_SHARE: f64 = 1e-12;

const FOLLOWS: usize = 0;
const LEAVES: usize = 1;
const LEFT_BEFORE: usize = 2;

/// The tables of a forest, with as few quadrature points as are exact for it.
pub enum TreeShap {
    /// Up to 8 features on a path.
    Points4(Tables<4>),
    /// Up to 16.
    Points8(Tables<8>),
    /// Up to 32.
    Points16(Tables<16>),
}

impl TreeShap {
    /// Build the tables; about 100 bytes a node at 4 points.
    pub fn new(trees: &[Tree], base_margin: f32, features: usize) -> Result<Self> {
        let longest = trees.iter().map(features_on_longest_path).max().unwrap_or(0);
        Ok(match longest {
            0..=8 => Self::Points4(Tables::new(trees, base_margin, features)),
            9..=16 => Self::Points8(Tables::new(trees, base_margin, features)),
            17..=32 => Self::Points16(Tables::new(trees, base_margin, features)),
            _ => {
                return Err(KernelError::Plan(format!(
                    "forest: contributions are exact for 32 features on a path; this model has {longest}"
                )))
            }
        })
    }

    /// Row-major contributions, (features + 1) columns, the last one the bias.
    pub fn contributions(&self, matrix: &[f32], rows: usize) -> Vec<f32> {
        match self {
            Self::Points4(tables) => tables.contributions(matrix, rows),
            Self::Points8(tables) => tables.contributions(matrix, rows),
            Self::Points16(tables) => tables.contributions(matrix, rows),
        }
    }
}

/// The tables for Q quadrature points.
pub struct Tables<const Q: usize> {
    trees: Vec<ShapTree<Q>>,
    features: usize,
    bias: f32,
    most_nodes: usize,
}

/// A node as its parent's edge to it; index 0 is the root, whose edge is never used.
struct Edge<const Q: usize> {
    parent: u32,
    /// The last edge above on the same feature; 0 (the root) if there is none.
    earlier: u32,
    feature: u32,
    threshold: f32,
    is_left: bool,
    missing_goes_here: bool,
    is_leaf: bool,
    value: f32,
    step: [[f32; Q]; 3],
    gain: [[f32; Q]; 3],
}

struct ShapTree<const Q: usize> {
    edges: Vec<Edge<Q>>,
}

/// Working space of one row in one tree.
struct Scratch<const Q: usize> {
    state: Vec<u8>,
    product: Vec<[f32; Q]>,
}

impl<const Q: usize> Tables<Q> {
    fn new(trees: &[Tree], base_margin: f32, features: usize) -> Self {
        let rule = gauss_legendre::<Q>();
        let mut bias = f64::from(base_margin);
        let trees: Vec<_> = trees.iter().map(|tree| ShapTree::new(tree, &rule, &mut bias)).collect();
        let most_nodes = trees.iter().map(|tree| tree.edges.len()).max().unwrap_or(0);
        Self { trees, features, bias: bias as f32, most_nodes }
    }

    fn contributions(&self, matrix: &[f32], rows: usize) -> Vec<f32> {
        let width = self.features;
        let mut output = vec![self.bias; rows * (width + 1)];
        let mut scratch = Scratch { state: vec![0; self.most_nodes], product: vec![[0.0; Q]; self.most_nodes] };
        let mut sums = vec![[0.0_f32; Q]; rows.min(CHUNK_ROWS) * width];
        let chunks = matrix.chunks(CHUNK_ROWS * width).zip(output.chunks_mut(CHUNK_ROWS * (width + 1)));
        for (rows, output) in chunks {
            sums.fill([0.0; Q]);
            for tree in &self.trees {
                for (row, sums) in rows.chunks_exact(width).zip(sums.chunks_exact_mut(width)) {
                    tree.add(row, sums, &mut scratch);
                }
            }
            for (output, sums) in output.chunks_exact_mut(width + 1).zip(sums.chunks_exact(width)) {
                for (output, sum) in output.iter_mut().zip(sums) {
                    *output = sum.iter().sum();
                }
            }
        }
        output
    }
}

impl<const Q: usize> ShapTree<Q> {
    fn new(tree: &Tree, rule: &[(f64, f64); Q], bias: &mut f64) -> Self {
        let root = Edge {
            parent: 0,
            earlier: 0,
            feature: 0,
            threshold: 0.0,
            is_left: false,
            missing_goes_here: false,
            is_leaf: tree.nodes[0].split.is_none(),
            value: tree.nodes[0].value,
            step: [[1.0; Q]; 3],
            gain: [[0.0; Q]; 3],
        };
        let mut edges: Vec<Edge<Q>> = vec![root];
        let mut shares = vec![1.0_f64];
        let mut reach = vec![1.0_f64];
        // Parents stand before their children in a `Tree`, and the children of a split stand together.
        let mut order: Vec<(usize, usize)> = vec![(0, 0)];
        let mut next = 0;
        while let Some((from, to)) = order.get(next).copied() {
            next += 1;
            let Some(split) = tree.nodes[from].split else {
                *bias += f64::from(tree.nodes[from].value) * reach[to];
                continue;
            };
            let earlier = earlier_edge(&edges, to, split.feature as u32);
            for (child, is_left) in [(split.left, true), (split.right, false)] {
                let node = &tree.nodes[child];
                let share = cover_share(node.cover, tree.nodes[from].cover);
                let (before, now) = (shares[earlier], shares[earlier] * share);
                let (step, gain) = tables(before, now, rule);
                order.push((child, edges.len()));
                shares.push(now);
                reach.push(reach[to] * share);
                edges.push(Edge {
                    parent: to as u32,
                    earlier: earlier as u32,
                    feature: split.feature as u32,
                    threshold: split.threshold,
                    is_left,
                    missing_goes_here: split.default_left == is_left,
                    is_leaf: node.split.is_none(),
                    value: node.value,
                    step,
                    gain,
                });
            }
        }
        Self { edges }
    }

    /// Add one row's contributions, still spread over the quadrature points, to `sums`.
    fn add(&self, row: &[f32], sums: &mut [[f32; Q]], scratch: &mut Scratch<Q>) {
        let state = &mut scratch.state[..self.edges.len()];
        let product = &mut scratch.product[..self.edges.len()];
        state[0] = FOLLOWS as u8;
        product[0] = [1.0; Q];
        for (index, edge) in self.edges.iter().enumerate().skip(1) {
            let now = edge.state(row, state[edge.earlier as usize]);
            state[index] = now;
            let scale = if edge.is_leaf { edge.value } else { 1.0 };
            let parent = product[edge.parent as usize];
            let step = &edge.step[now as usize];
            product[index] = std::array::from_fn(|point| parent[point] * step[point] * scale);
        }
        // From here on `product` holds G: a leaf's is complete, and a split's starts at nothing.
        for (edge, product) in self.edges.iter().zip(product.iter_mut()) {
            if !edge.is_leaf {
                *product = [0.0; Q];
            }
        }
        for (index, edge) in self.edges.iter().enumerate().skip(1).rev() {
            let leaves = product[index];
            let gain = &edge.gain[state[index] as usize];
            let sum = &mut sums[edge.feature as usize];
            let parent = &mut product[edge.parent as usize];
            for point in 0..Q {
                sum[point] += leaves[point] * gain[point];
                parent[point] += leaves[point];
            }
        }
    }
}

impl<const Q: usize> Edge<Q> {
    fn state(&self, row: &[f32], earlier: u8) -> u8 {
        let value = row[self.feature as usize];
        let goes_here = if value.is_nan() { self.missing_goes_here } else { (value < self.threshold) == self.is_left };
        match (earlier as usize == FOLLOWS, goes_here) {
            (true, true) => FOLLOWS as u8,
            (true, false) => LEAVES as u8,
            (false, _) => LEFT_BEFORE as u8,
        }
    }
}

/// The factors of an edge whose feature had share `before` above it and has share `now` below it.
fn tables<const Q: usize>(before: f64, now: f64, rule: &[(f64, f64); Q]) -> ([[f32; Q]; 3], [[f32; Q]; 3]) {
    let (mut step, mut gain) = ([[0.0; Q]; 3], [[0.0; Q]; 3]);
    for (state, o_before, o_now) in [(FOLLOWS, 1.0, 1.0), (LEAVES, 1.0, 0.0), (LEFT_BEFORE, 0.0, 0.0)] {
        for (point, (t, weight)) in rule.iter().enumerate() {
            let factor_before = t * o_before + (1.0 - t) * before;
            let factor_now = t * o_now + (1.0 - t) * now;
            step[state][point] = (factor_now / factor_before) as f32;
            gain[state][point] = (weight * ((o_now - now) / factor_now - (o_before - before) / factor_before)) as f32;
        }
    }
    (step, gain)
}

fn cover_share(cover: f32, parent: f32) -> f64 {
    if parent > 0.0 {
        (f64::from(cover) / f64::from(parent)).max(MIN_SHARE)
    } else {
        0.5
    }
}

fn earlier_edge<const Q: usize>(edges: &[Edge<Q>], node: usize, feature: u32) -> usize {
    let mut at = node;
    while at != 0 && edges[at].feature != feature {
        at = edges[at].parent as usize;
    }
    at
}

fn features_on_longest_path(tree: &Tree) -> usize {
    let mut longest = 0;
    let mut waiting = vec![(0_usize, Vec::new())];
    while let Some((node, mut path)) = waiting.pop() {
        longest = longest.max(path.len());
        if let Some(split) = tree.nodes[node].split {
            if !path.contains(&split.feature) {
                path.push(split.feature);
            }
            waiting.push((split.left, path.clone()));
            waiting.push((split.right, path));
        }
    }
    longest
}

/// Points and weights of Gauss–Legendre quadrature on (0, 1), by Newton's method on the Legendre polynomial.
fn gauss_legendre<const Q: usize>() -> [(f64, f64); Q] {
    let order = Q as f64;
    std::array::from_fn(|index| {
        let mut x = (std::f64::consts::PI * (index as f64 + 0.75) / (order + 0.5)).cos();
        let mut slope = 1.0;
        for _ in 0..32 {
            let (mut previous, mut value) = (1.0, x);
            for degree in 2..=Q {
                let degree = degree as f64;
                (previous, value) = (value, ((2.0 * degree - 1.0) * x * value - (degree - 1.0) * previous) / degree);
            }
            slope = order * (x * value - previous) / (x * x - 1.0);
            x -= value / slope;
        }
        ((x + 1.0) / 2.0, 1.0 / ((1.0 - x * x) * slope * slope))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quadrature_is_exact_up_to_degree_2q_minus_1() {
        let rule = gauss_legendre::<4>();
        for degree in 0..8 {
            let integral: f64 = rule.iter().map(|(t, weight)| weight * t.powi(degree)).sum();
            assert!((integral - 1.0 / f64::from(degree + 1)).abs() < 1e-14, "t^{degree}: {integral}");
        }
        let past: f64 = rule.iter().map(|(t, weight)| weight * t.powi(8)).sum();
        assert!((past - 1.0 / 9.0).abs() > 1e-7, "degree 8 must be past what four points can do");
    }
}
