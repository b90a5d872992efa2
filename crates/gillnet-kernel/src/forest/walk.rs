//! The descent: eight rows down one tree, or one row down eight trees.
//!
//! Both have the same inner step, one load of a node, one of a key, one comparison and one addition, without a branch
//! that depends on the data. The indices are unchecked: `model` has verified that every feature is below the width
//! of the rows, and `layout` that every child is inside its group.

use super::keys::KeyBlocks;
use super::layout::{Group, LevelledNode, LinkedNode, LANES};

/// Add the leaves of a group's trees to the margins of the rows in `blocks`, in the order of the trees.
pub fn add_leaves(group: &Group, blocks: &KeyBlocks, margins: &mut [f32]) {
    debug_assert_eq!(blocks.rows(), margins.len());
    let full = margins.len() / LANES;
    let (whole, rest) = margins.split_at_mut(full * LANES);
    match group {
        Group::Levelled { trees, depth, nodes, leaves } => {
            let size = 1_usize << depth;
            for (nodes, leaves) in nodes.chunks_exact(size).zip(leaves.chunks_exact(size)).take(*trees) {
                for (index, margins) in whole.chunks_exact_mut(LANES).enumerate() {
                    let ends = descend_levelled([nodes.as_ptr(); LANES], *depth, blocks.block(index), |lane| lane);
                    for (margin, end) in margins.iter_mut().zip(ends) {
                        *margin += leaves[end & (size - 1)];
                    }
                }
            }
            for (lane, margin) in rest.iter_mut().enumerate() {
                let starts = std::array::from_fn(|tree| nodes[tree * size..].as_ptr());
                let ends = descend_levelled(starts, *depth, blocks.block(full), |_| lane);
                for (tree, end) in ends.into_iter().enumerate().take(*trees) {
                    *margin += leaves[tree * size + (end & (size - 1))];
                }
            }
        }
        Group::Linked { trees, depth, nodes, roots } => {
            for root in &roots[..*trees] {
                for (index, margins) in whole.chunks_exact_mut(LANES).enumerate() {
                    let ends = descend_linked([*root; LANES], *depth, nodes, blocks.block(index), |lane| lane);
                    for (margin, end) in margins.iter_mut().zip(ends) {
                        *margin += nodes[end as usize].value;
                    }
                }
            }
            for (lane, margin) in rest.iter_mut().enumerate() {
                let ends = descend_linked(*roots, *depth, nodes, blocks.block(full), |_| lane);
                for end in ends.into_iter().take(*trees) {
                    *margin += nodes[end as usize].value;
                }
            }
        }
    }
}

/// Walk `LANES` levelled trees of 2^depth places; returns the heap index of each leaf, 2^depth to 2^(depth + 1) - 1.
#[inline(always)]
fn descend_levelled(
    trees: [*const LevelledNode; LANES],
    depth: u32,
    keys: &[u32],
    lane_of: impl Fn(usize) -> usize,
) -> [usize; LANES] {
    let mut at = [1_usize; LANES];
    for _ in 0..depth {
        for (walk, at) in at.iter_mut().enumerate() {
            // SAFETY: before level l the index is in 2^l..2^(l + 1), so it is below 2^depth, the places of a tree;
            // offset + lane is inside the block, since every slot of the model is (checked when it was parsed).
            let below = unsafe {
                let node = *trees[walk].add(*at);
                *keys.get_unchecked(node.offset as usize + lane_of(walk)) < node.threshold
            };
            *at = 2 * *at + usize::from(below);
        }
    }
    at
}

/// Walk `LANES` linked trees; returns the index of each leaf in the group.
#[inline(always)]
fn descend_linked(
    roots: [u32; LANES],
    depth: u32,
    nodes: &[LinkedNode],
    keys: &[u32],
    lane_of: impl Fn(usize) -> usize,
) -> [u32; LANES] {
    let mut at = roots;
    for _ in 0..depth {
        for (walk, at) in at.iter_mut().enumerate() {
            // SAFETY: roots and children are indices of `nodes` by construction, and a leaf leads to itself;
            // offset + lane is inside the block, since every slot of the model is (checked when it was parsed).
            *at = unsafe {
                let node = *nodes.get_unchecked(*at as usize);
                node.first + u32::from(*keys.get_unchecked(node.offset as usize + lane_of(walk)) < node.threshold)
            };
        }
    }
    at
}
