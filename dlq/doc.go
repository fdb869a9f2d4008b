// Package dlq looks into dead letters and sends them again.
//
// A message that is given up lies in the dead letters of its topic and group, or in the topic that its subscription names. Open and OpenTopic
// look into either: List, Groups and Show take nothing away and count nothing. What cannot be read is listed raw, never left out, and the dead
// letters of other libraries are read as well, see Format.
//
//	q := dlq.Open(broker, "orders", "billing")
//	plan, err := q.Plan(ctx, dlq.Filter{Category: "timeout"}, dlq.Replay{Rate: 100})
//	fmt.Println(plan.Count, "messages, such as", plan.Sample[0].Message.ID)
//	report, err := plan.Run(ctx)
//
// # What a replay does
//
// It gives the group that failed, and no other, each message as it was: ID, type, key, payload and headers, byte for byte. The headers of the
// dead letter are taken off, and two are added: "omnibus-replays", how often the message has been replayed, and "omnibus-replay-of", the ID of its
// dead letter. They stay when it fails again, so that the next plan replays the new dead letter and not the old one with it.
//
//   - The selection is made by Plan and does not change any more: what fails again while the plan runs is not in it.
//   - A message counts when the broker has confirmed its copy. One that cannot be sent is reported, and the others go on.
//   - The messages of a key go one after the other, in the order in which they were given up. That is the order in which they were
//     published where the subscription keeps the order of keys.
//   - Where the subscription blocks keys, see pubsub.BlockKey, a replay does not pass an earlier one of its key that is neither resolved nor discarded:
//     it becomes a dead letter again.
//
// # Interrupted, and run again
//
// Dead letters stay where they are, also those that were replayed: not every broker can take one message away. So nothing is lost wherever a
// replay ends, and what was sent already is known from elsewhere. In the process that began it, the Plan knows: Run it again. Another
// process reads it from the Journal that the first one wrote, see Queue.Resume. Up to 256 messages were on their way when that one died; they are sent again,
// with the same dedup tokens. Where Capabilities.Dedup is declared, and no longer over, they are not stored twice; elsewhere the group gets them twice.
//
// # Replayed is not solved
//
// Beside the dead letters of a group lies what becomes of them, see State: a replay makes a dead letter pending, the handler's success resolves it, and
// where it fails again there is a new dead letter. The engine stores the success before it acks the message, so that a crash between the two lets both
// happen again; where it can never be stored (denied, or the adapter has no place for it) the message is acked and the log says so. A new Plan leaves
// out what is pending, resolved or discarded. Nothing is ever changed or removed there: it is the audit record, too, see Queue.Audit, and every call
// that needs states reads it from its beginning.
//
// Discard and Restore say what nobody wants any more, SetGroup how far somebody is with those of one fingerprint. Export and Import move dead letters
// between queues and brokers, Edit makes a changed copy, Watch waits for new ones, PlanPurge removes the oldest for good where the broker can. Running,
// PauseReplay, ResumeReplay and CancelReplay reach a replay in another process, and Replay.Canary lets a few messages go first.
//
// # What is not dead yet
//
// What has failed and waits at the broker for its retry is no dead letter. Where Capabilities.Waiting says that the broker can, Waiting lists it, RetryNow
// does not let it wait any longer, and DeadLetterNow makes a dead letter of it.
//
// # One at a time
//
// One plan of a Queue runs at a time, another is an ErrConflict. With Replay.Turn that holds for all processes; without it nothing keeps others from
// replaying the same dead letters. Two that run one plan send the same tokens; two plans send what both select twice.
package dlq
