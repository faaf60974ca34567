"""Answers that say an error code: a broker's own answer rewritten, or one in its place for a request that it never saw."""

from typing import Any, Literal

from tests.wire.messages import RequestHead, Tree

Level = Literal["top", "inner"]
_codes = ("ErrorCode", "PartitionErrorCode")
_nothing = {"Records": b"", "CommittedOffset": -1, "Offset": -1, "BaseOffset": -1}


def refuse(head: RequestHead, frame: bytes, code: int) -> Tree:
    """The answer to this request when the broker does nothing and says `code` of all that it names."""
    asked = head.request(frame)
    match head.name:
        case "Produce":
            return {
                "Responses": _mirrored(
                    asked["TopicData"], "PartitionData", "PartitionResponses", "Index", code
                )
            }
        case "OffsetCommit" | "TxnOffsetCommit":
            return {"Topics": _mirrored(asked["Topics"], "Partitions", "Partitions", "PartitionIndex", code)}
        case "AddPartitionsToTxn" if head.version <= 3:
            return {
                "ResultsByTopicV3AndBelow": [
                    {
                        "Name": topic["Name"],
                        "ResultsByPartition": [
                            {"PartitionIndex": partition, "PartitionErrorCode": code}
                            for partition in topic["Partitions"]
                        ],
                    }
                    for topic in asked["V3AndBelowTopics"]
                ]
            }
        case "JoinGroup":
            return {"ErrorCode": code, "ProtocolName": "", "MemberId": asked["MemberId"]}
        case "LeaveGroup":
            return {"ErrorCode": code, "Members": []}
        case "ConsumerGroupHeartbeat":
            return {
                "ErrorCode": code,
                "MemberId": asked["MemberId"],
                "MemberEpoch": 0,
                "HeartbeatIntervalMs": 500,
            }
        case "InitProducerId":
            return {"ErrorCode": code, "ProducerId": -1, "ProducerEpoch": -1}
        case "SyncGroup" | "Heartbeat" | "AddOffsetsToTxn" | "EndTxn":
            return {"ErrorCode": code}
    raise ValueError(f"no refusal of {head.name} is known here; rewrite the broker's answer")


def say(head: RequestHead, answer: Tree, code: int, level: Level) -> Tree:
    """The broker's answer, saying `code`: at its top, or of each of the smallest things in it. Of what has a code no records
    are left, no offset, and of a topic no partitions, as with a broker that says so itself.
    """
    if level == "inner":
        _say_of_the_smallest(answer, code)
        return answer
    if head.name == "Metadata":
        for topic in answer["Topics"]:
            topic |= {"ErrorCode": code, "Partitions": []}
    elif head.name == "OffsetFetch" and head.version >= 8:
        for group in answer["Groups"]:
            group |= {"ErrorCode": code, "Topics": []}
    else:
        answer["ErrorCode"] = code
        if head.name == "Fetch":
            answer["Responses"] = []
    return answer


def _mirrored(topics: list[Tree], inner: str, told: str, index: str, code: int) -> list[Tree]:
    """Of each topic and partition asked about: its name, and the code."""
    return [
        {key: topic[key] for key in ("Name", "TopicId") if key in topic}
        | {
            told: [
                {index: partition[index], "ErrorCode": code, "BaseOffset": -1} for partition in topic[inner]
            ]
        }
        for topic in topics
    ]


def _say_of_the_smallest(tree: Any, code: int) -> bool:
    """Whether the tree has a code, or anything in it."""
    if isinstance(tree, list):
        found = [_say_of_the_smallest(each, code) for each in tree]
        return any(found)
    if not isinstance(tree, dict):
        return False
    inner = [_say_of_the_smallest(each, code) for each in tree.values()]
    within = any(inner)
    own = [name for name in _codes if name in tree]
    if own and not within:
        tree[own[0]] = code
        for name, nothing in _nothing.items():
            if name in tree:
                tree[name] = nothing
    return bool(within or own)
