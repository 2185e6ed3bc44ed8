"""An error that the twin of the commands' group once had, so that the engine was blamed (seed 400176 of its day)."""

from tests.simulation.faults import FaultKind, StepFault
from tests.simulation.scripted import Script, profile


def test_a_commit_of_an_earlier_generation_is_refused_though_its_sender_has_the_kafka_partition_again() -> None:
    # The sender is cut off before its commit; the other member works the command off, and stops. The sender is back: it
    # commits again before it hears of its new assignment, and reads on behind the command before that commit arrives. The
    # twin took it then: the offset was set back, and as no command came after it, this one was left for ever, though it
    # was carried out and answered.
    cut_off = StepFault(operation="commit_offsets", nth=1, kind=FaultKind.CUT_KAFKA, for_s=1.7, after=False)
    script = Script(profile(commanded=True, step_faults=[cut_off]))
    kafka, commands = script.cluster.worlds.kafka, script.cluster.worlds.commands
    worked_off: list[bool] = []

    def other_stops() -> None:
        [other] = [node for node in script.cluster.nodes if node.host.reaches_kafka]
        other.stop()

    script.at(1.0, lambda: script.command_cancel("key"))
    script.at(2.5, other_stops)
    script.at(2.6, lambda: kafka.forced.update(commit_offsets=[0.9] * 3))
    script.at(6.0, lambda: worked_off.append(commands.worked_off()))
    violations = script.play()
    assert "commit_offsets NoMember" in script.cluster.trace.text()
    assert (violations, worked_off) == ([], [True])
