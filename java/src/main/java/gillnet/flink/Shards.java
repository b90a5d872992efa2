package gillnet.flink;

import org.apache.flink.runtime.state.KeyGroupRangeAssignment;

/** Keys of shards, chosen so that each shard is a key group of its own: Flink would put some of so few keys into one group. */
final class Shards {
    private Shards() {}

    /** The key of each shard, where the operator's greatest parallelism is the number of shards. */
    static int[] keys(int shards) {
        int[] keys = new int[shards];
        boolean[] found = new boolean[shards];
        int left = shards;
        for (int key = 0; left > 0; key++) {
            int group = KeyGroupRangeAssignment.assignToKeyGroup(key, shards);
            if (!found[group]) {
                found[group] = true;
                keys[group] = key;
                left--;
            }
        }
        return keys;
    }
}
