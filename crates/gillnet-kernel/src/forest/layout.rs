//! Trees laid out for the descent: groups of eight, so that eight trees can be walked at once by one row, and one
//! tree at once by eight rows. Eight walks that do not wait for each other hide the latency of the loads.
//!
//! A group of shallow trees is *levelled*: every tree is filled up to the depth of the deepest, and a node's children
//! are found by arithmetic (`2i` and `2i + 1`), 8 bytes a node. Groups of deep trees would grow as 2^depth, so they
//! are *linked*: 16 bytes a node, children by index, and a leaf leads to itself.

use super::keys::{key, slot};
use super::model::Tree;

/// Rows in a block, and trees in a group.
pub const LANES: usize = 8;

/// The deepest group that is levelled: 256 splits and leaves, 3 KB a tree.
const MAX_LEVELLED_DEPTH: u32 = 8;

/// A split of a levelled tree. Left is the odd child, so the child is `2i + (key < threshold)`.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub struct LevelledNode {
    /// The threshold's key; 0 sends every row right, for the splits that only fill up a level.
    pub threshold: u32,
    /// Where the slot starts in a block of keys: slot × LANES.
    pub offset: u32,
}

/// A split or a leaf of a linked tree. The child is `first + (key < threshold)`: right first, then left.
#[derive(Clone, Copy)]
#[repr(C, align(16))]
pub struct LinkedNode {
    /// The threshold's key; 0 for a leaf, which no key is below.
    pub threshold: u32,
    /// Where the slot starts in a block of keys: slot × LANES.
    pub offset: u32,
    /// The index of the right child in the group; for a leaf its own index.
    pub first: u32,
    /// The leaf's value; 0 for a split.
    pub value: f32,
}

/// Up to [`LANES`] consecutive trees.
pub enum Group {
    /// `nodes[tree << depth | i]` with the root at i = 1, and `leaves[tree << depth | j]`, for all LANES trees.
    Levelled { trees: usize, depth: u32, nodes: Vec<LevelledNode>, leaves: Vec<f32> },
    /// The root of tree t is at `roots[t]`.
    Linked { trees: usize, depth: u32, nodes: Vec<LinkedNode>, roots: [u32; LANES] },
}

/// Lay out the trees, in their order.
pub fn build_groups(trees: &[Tree]) -> Vec<Group> {
    trees.chunks(LANES).map(build_group).collect()
}

fn build_group(trees: &[Tree]) -> Group {
    let depth = trees.iter().map(Tree::depth).max().unwrap_or(0);
    if depth <= MAX_LEVELLED_DEPTH {
        levelled(trees, depth)
    } else {
        linked(trees, depth)
    }
}

fn levelled(trees: &[Tree], depth: u32) -> Group {
    let size = 1_usize << depth;
    // Places of the last group that hold no tree are walked too, but never summed.
    let mut nodes = vec![LevelledNode { threshold: 0, offset: 0 }; LANES * size];
    let mut leaves = vec![0.0; LANES * size];
    for (index, tree) in trees.iter().enumerate() {
        let place = index * size..(index + 1) * size;
        fill_levelled(tree, 0, 1, &mut nodes[place.clone()], &mut leaves[place]);
    }
    Group::Levelled { trees: trees.len(), depth, nodes, leaves }
}

fn fill_levelled(tree: &Tree, from: usize, to: usize, nodes: &mut [LevelledNode], leaves: &mut [f32]) {
    let node = &tree.nodes[from];
    if to >= nodes.len() {
        leaves[to - nodes.len()] = node.value;
        return;
    }
    let (left, right) = match node.split {
        Some(split) => {
            nodes[to] = LevelledNode {
                threshold: key(split.threshold),
                offset: (slot(split.feature, split.default_left) * LANES) as u32,
            };
            (split.left, split.right)
        }
        None => (from, from),
    };
    fill_levelled(tree, left, 2 * to + 1, nodes, leaves);
    fill_levelled(tree, right, 2 * to, nodes, leaves);
}

fn linked(trees: &[Tree], depth: u32) -> Group {
    let mut nodes = Vec::with_capacity(trees.iter().map(|tree| tree.nodes.len()).sum());
    let mut roots = [0; LANES];
    for (root, tree) in roots.iter_mut().zip(trees) {
        *root = nodes.len() as u32;
        nodes.push(LinkedNode { threshold: 0, offset: 0, first: *root, value: tree.nodes[0].value });
        let mut waiting = vec![(0, *root as usize)];
        while let Some((from, to)) = waiting.pop() {
            let Some(split) = tree.nodes[from].split else { continue };
            let first = nodes.len();
            for child in [split.right, split.left] {
                let own = nodes.len() as u32;
                waiting.push((child, own as usize));
                nodes.push(LinkedNode { threshold: 0, offset: 0, first: own, value: tree.nodes[child].value });
            }
            nodes[to] = LinkedNode {
                threshold: key(split.threshold),
                offset: (slot(split.feature, split.default_left) * LANES) as u32,
                first: first as u32,
                value: 0.0,
            };
        }
    }
    // Places that hold no tree walk the first one, and are never summed.
    Group::Linked { trees: trees.len(), depth, nodes, roots }
}
