"""The command line. Each command is one documented function call, and whatever is the user's to fix is one sentence.

Nothing heavy is imported before a command runs, so that `ludus --help` answers at once.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .sandbox.errors import LudusError

if TYPE_CHECKING:
    from .agents.engine import Usage
    from .agents.evaluate import EvalResult
    from .agents.part_scores import PartScore

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130
# The base of typer's own complaints; where it can be imported from differs between versions of typer.
UsageComplaint = next(
    k for k in typer.BadParameter.__mro__ if issubclass(k, Exception) and k.__name__ == "ClickException"
)

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
new = typer.Typer(help="Write something new to start from.", rich_markup_mode=None)
app.add_typer(new, name="new")


class CommandError(LudusError):
    """Arguments that do not go together."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command `ludus`.

    Exit codes: 0 done, 1 a check failed or the doctor found something, 2 something to put right, 130 interrupted.
    """
    try:
        status = app(args=arguments, prog_name="ludus", standalone_mode=False)
        sys.stdout.flush()
    except LudusError as error:
        _fail(str(error))
    except UsageComplaint as complaint:
        _fail(_usage(complaint))
    except OSError as error:
        if error.errno == errno.EPIPE:  # the reader, such as `head`, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(0)
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        _fail(f"{error.strerror}{f' while writing {error.filename}' if error.filename else ''}; free some space.")
    except (KeyboardInterrupt, typer.Abort):
        _say("interrupted.")
        sys.exit(INTERRUPTED)
    sys.exit(status if isinstance(status, int) else 0)


@app.callback(invoke_without_command=True)
def ludus(
    context: typer.Context, version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False
) -> None:
    """Evaluate and train language-model agents against rewards that can be verified."""
    if version:
        from . import __version__

        print(__version__)
    elif context.invoked_subcommand is None:
        print(context.get_help())


@app.command()
def train(
    recipe: Annotated[str | None, typer.Argument(help="A YAML file, such as recipes/wordmath.yaml.")] = None,
    overrides: Annotated[list[str] | None, typer.Argument(help="Changes: policy.steps=100 seed=1")] = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder; else runs/NAME-TIME.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with the run in this folder.")] = None,
) -> None:
    """Train a model by a recipe.

    For example: ludus train recipes/wordmath.yaml policy.steps=100 seed=1
    """
    if resume is not None and (recipe is not None or out is not None):
        raise CommandError("--resume goes on with the run's own recipe in its own folder; leave out everything else.")
    if resume is None and recipe is None:
        raise CommandError("name a recipe, such as recipes/wordmath.yaml, or go on with a run by --resume RUN.")

    from .chain import Chain, load_training
    from .chain_folder import ChainFolder
    from .progress import Display
    from .run_folder import CHAIN, RunFolder

    # What can be wrong with the arguments is found before torch is imported.
    run: RunFolder | ChainFolder
    if resume is not None:
        run = (ChainFolder if (resume / CHAIN).is_file() else RunFolder).resume(resume)
    else:
        wanted = load_training(recipe or "", overrides or [])
        run = ChainFolder.create(wanted, out) if isinstance(wanted, Chain) else RunFolder.create(wanted, out)
    with run:
        try:
            from .train import train_recipe
            from .train_chain import train_chain

            _quiet_transformers()
            with Display() as display:
                display.note(f"Run folder: {run.path}")
                if isinstance(run, ChainFolder):
                    train_chain(run, display=display)
                else:
                    train_recipe(run.recipe, run, resume=resume is not None, display=display)
            print(run.path)
        except KeyboardInterrupt:
            _say(f"interrupted; go on with: ludus train --resume {run.path}")
            raise typer.Exit(INTERRUPTED) from None
        except LudusError:
            if resume is None:
                run.remove_if_unused()
            raise


@app.command("eval")
def evaluate(
    env: Annotated[str, typer.Argument(help="A registered environment; `ludus envs` lists them.")],
    model: Annotated[
        str, typer.Option(help="A model directory, a run folder, or a name on the hub; the endpoint's name for it.")
    ],
    tasks: Annotated[int, typer.Option(min=1, help="How many tasks.")] = 200,
    split: Annotated[str, typer.Option(help="Which split, where the environment has splits.")] = "test",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the tasks and of the sampling.")] = 0,
    settings: Annotated[list[str] | None, typer.Option("--set", help="Option of the environment: key=value.")] = None,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 is greedy.")] = 0.0,
    max_tokens: Annotated[int, typer.Option(min=1, help="Tokens a turn may have.")] = 256,
    out: Annotated[Path | None, typer.Option(help="A new folder for the episodes, the numbers and a report.")] = None,
    engine: Annotated[
        str | None, typer.Option(help="What plays a model that is here: torch or vllm; torch where not given.")
    ] = None,
    endpoint: Annotated[
        str | None, typer.Option(help="An OpenAI-compatible server to ask, such as http://127.0.0.1:8000/v1.")
    ] = None,
    api_key_env: Annotated[
        str | None, typer.Option(help="With --endpoint: the environment variable that holds its key.")
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option(min=1, help="With --endpoint: episodes played at once; 16 where not given.")
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(help="With --endpoint: seconds of one request; 120 where not given.")
    ] = None,
    max_requests_per_minute: Annotated[
        int | None, typer.Option(min=1, help="With --endpoint: requests in any minute.")
    ] = None,
    max_tokens_per_minute: Annotated[
        int | None, typer.Option(min=1, help="With --endpoint: tokens in any minute, prompts and answers together.")
    ] = None,
    budget_tokens: Annotated[
        int | None, typer.Option(min=1, help="With --endpoint: stop asking after so many tokens.")
    ] = None,
    budget_usd: Annotated[
        float | None, typer.Option(help="With --endpoint: stop asking after so much money; needs the prices.")
    ] = None,
    price_in: Annotated[
        float | None, typer.Option(help="With --endpoint: USD for a million tokens of prompts.")
    ] = None,
    price_out: Annotated[
        float | None, typer.Option(help="With --endpoint: USD for a million tokens of answers.")
    ] = None,
    logprobs: Annotated[
        bool, typer.Option("--logprobs", help="With --endpoint: keep the log-probabilities of its tokens.")
    ] = False,
) -> None:
    """Evaluate a model in an environment.

    For example: ludus eval ludus/WordMath-v0 --model runs/NAME --set levels=[3]
    """
    from .recipe import parse_setting

    options = dict(parse_setting(text, "--set") for text in settings or [])
    _check_out(out)
    arguments: dict[str, Any] = {
        "tasks": tasks,
        "split": split,
        "seed": seed,
        "options": options,
        "temperature": temperature,
        "max_tokens": max_tokens,
    }
    given = {
        "concurrency": concurrency,
        "timeout_s": timeout,
        "max_requests_per_minute": max_requests_per_minute,
        "max_tokens_per_minute": max_tokens_per_minute,
        "budget_tokens": budget_tokens,
        "budget_usd": budget_usd,
        "price_in": price_in,
        "price_out": price_out,
        "logprobs": logprobs or None,
    }
    of_endpoint = {name: value for name, value in given.items() if value is not None}
    if endpoint is None:
        for name in (*of_endpoint, *(["api_key_env"] if api_key_env is not None else [])):
            option = "--" + name.removesuffix("_s").replace("_", "-")
            raise CommandError(f"{option} is for a model behind a server; give its address with --endpoint.")
        if engine is not None:
            arguments["engine"] = engine
        result = _evaluate_here(env, model, arguments)
    else:
        if engine is not None:
            raise CommandError("--engine plays a model that is here, and --endpoint asks a server; give one of them.")
        arguments |= {"endpoint": endpoint, **of_endpoint}
        result = _evaluate_there(env, model, arguments, _key(api_key_env))
    print(summary(result))
    if result.stopped is not None:
        _say(f"stopped: {result.stopped}; {result.errors} of {len(result.episodes)} tasks were not played to the end.")
    if out is not None:
        from .evaluation_folder import write_evaluation

        print(f"report: {write_evaluation(out, {'env': env, 'model': model, **arguments}, result)}")


def _evaluate_here(env: str, model: str, arguments: dict[str, Any]) -> EvalResult:
    place = Path(model)
    if not place.exists() and (place.is_absolute() or (len(place.parts) > 1 and place.parent.is_dir())):
        raise CommandError(f"{model} does not exist; give a model directory, a run folder, or a name on the hub.")
    from .evaluate import evaluate_model
    from .progress import Display

    _quiet_transformers()
    with Display() as display:
        return evaluate_model(env, model, **arguments, display=display)


def _evaluate_there(env: str, model: str, arguments: dict[str, Any], key: str) -> EvalResult:
    from .evaluate_endpoint import evaluate_endpoint
    from .progress import Display

    with Display() as display:
        return evaluate_endpoint(env, model, **arguments, api_key=key, display=display)


def _key(variable: str | None) -> str:
    """The key for an endpoint. Its variable has to be named, so that no key goes where it was not meant to go."""
    if variable is None:
        return ""
    if not os.environ.get(variable):
        raise CommandError(f"--api-key-env {variable}: there is no such environment variable, or it is empty; set it.")
    return os.environ[variable]


def _check_out(out: Path | None) -> None:
    """Before the work is done: whether there will be a place for it."""
    if out is None:
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CommandError(f"{out} already holds something; name another folder with --out.")
    above = next(folder for folder in out.absolute().parents if folder.exists())
    if not above.is_dir():
        raise CommandError(f"{out} cannot be made, for {above} is a file; name another folder with --out.")


@app.command()
def check(
    name: Annotated[str, typer.Argument(help="An environment, the module:attribute of a verifier, or a sandbox.")],
    pairs: Annotated[
        Path | None, typer.Option(help='For a verifier: lines {"gold": …, "response": …, "prompt": …}.')
    ] = None,
    tasks: Annotated[int, typer.Option(min=1, help="For an environment: how many tasks.")] = 8,
    seed: Annotated[int, typer.Option(min=0, help="Seed of what is drawn.")] = 0,
    judges: Annotated[bool, typer.Option(help="Whether it says right or wrong, or only gives scores.")] = True,
    deadline: Annotated[float, typer.Option(help="Seconds that one call may take.")] = 10.0,
    settings: Annotated[list[str] | None, typer.Option("--set", help="Option of the environment: key=value.")] = None,
) -> None:
    """Check a verifier, the one in an environment, or a sandbox.

    A verifier must find right what is right and nothing else, whatever the tricks; in time, and always the same. A
    sandbox must hold programs that try to get out. For example: ludus check ludus/WordMath-v0
    """
    from .check import check as run_checks
    from .check import show_report
    from .recipe import parse_setting

    options = dict(parse_setting(text, "--set") for text in settings or [])
    report = run_checks(name, pairs=pairs, tasks=tasks, seed=seed, judges=judges, deadline_s=deadline, options=options)
    show_report(report, sys.stdout)
    if not report.passed:
        raise typer.Exit(FAILED)


@app.command()
def envs() -> None:
    """List the registered environments."""
    from .envs.registration import list_envs

    for info in list_envs():
        print(f"{info.name}\n    {info.summary}")
        options = [f"{key}={value!r}" for key, value in info.options.items() if key != "render_mode"]
        print(f"    options: {', '.join(options)}" if options else "    no options")


@app.command()
def view(
    run: Annotated[Path, typer.Argument(help="The folder of a run, a chain or an evaluation.")],
    serve: Annotated[bool, typer.Option(help="Serve the report, or only write it and print its path.")] = True,
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port on 127.0.0.1; 0 takes a free one.")] = 8642,
) -> None:
    """Show the report of a run.

    It is made anew at each visit, so that a run in progress can be watched, and served to this machine only.
    """
    from .viewer import report_server, write_any_report

    if not serve:
        print(write_any_report(run))
        return
    server = report_server(run, port)
    print(f"The report is at http://127.0.0.1:{server.server_address[1]}/", flush=True)
    print("Ctrl-C ends this.", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        server.server_close()


@app.command()
def doctor(
    run: Annotated[Path | None, typer.Argument(help="The folder of a run, finished or in progress.")] = None,
    engine: Annotated[str | None, typer.Option(help="Examine an engine instead: torch or vllm.")] = None,
    model: Annotated[str | None, typer.Option(help="For an engine: a model directory or a run folder.")] = None,
) -> None:
    """Say what is wrong with a run, or with an engine, and what to change.

    Of a run it reads the curves of the policy steps and the evaluations. Of an engine, by --engine vllm --model DIR, it
    tells why log-probabilities differ from the trainer's. Exit code: 0 if all is well, 1 with findings.
    """
    if (run is None) == (engine is None) or (engine is None) != (model is None):
        raise CommandError("give either the folder of a run, or --engine torch or vllm with --model DIR.")
    if engine is not None and model is not None:
        return _examine_engine(engine, model)
    assert run is not None
    from .doctor import diagnose
    from .run_folder import RunFolder

    rows = RunFolder(run).metrics()
    if not rows:
        raise CommandError(f"{run} holds no metrics yet; let the run take a step first.")
    findings = diagnose(rows)
    steps = sum(row["phase"] == "policy" for row in rows)
    for finding in findings:
        print(f"{finding.severity}  {finding.name}, step {finding.step}\n    {finding.wrong}\n    {finding.change}")
    count = f"{len(findings)} finding{'' if len(findings) == 1 else 's'}" if findings else "nothing wrong"
    print(f"{run}: {count} in {steps} policy steps")
    if findings:
        raise typer.Exit(FAILED)


def _examine_engine(kind: str, path: str) -> None:
    from .evaluate import examine_engine

    _quiet_transformers()
    report = examine_engine(kind, path)
    for name, gap in report.gaps.items():
        print(f"{name:26} {gap:.2g} nats")
    for finding in report.findings:
        print(f"{finding.name}\n    {finding.wrong}\n    {finding.change}")
    count = f"{len(report.findings)} finding{'' if len(report.findings) == 1 else 's'}"
    print(f"{kind} on {path}: {count if report.findings else 'nothing wrong'}")
    if report.findings:
        raise typer.Exit(FAILED)


@app.command("docker-image")
def docker_image() -> None:
    """Make the image of the Docker sandbox.

    From its Dockerfile, or from Debian's packages where no registry can be reached; nothing is done where it is there.
    """
    from .sandbox.docker_engine import docker_client
    from .sandbox.docker_image import image_name, make_image

    client = docker_client()
    _say(f"making {image_name()}; this may take a minute")
    print(make_image(client))


@app.command("sandbox-server")
def sandbox_server(
    sandbox: Annotated[str, typer.Option(help="Which sandbox programs run in.")] = "auto",
    host: Annotated[str, typer.Option(help="The address to listen at; 0.0.0.0 is all of this machine.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 takes a free one.")] = 8675,
    limits: Annotated[
        list[str] | None, typer.Option("--limit", help="The most a program may ask for: key=value, as wall_s=60.")
    ] = None,
) -> None:
    """Let other machines run programs in a sandbox here.

    Its token is taken from LUDUS_SANDBOX_TOKEN. Clients set the same, and LUDUS_SANDBOX_URL to the printed address.
    """
    from .recipe import parse_setting
    from .sandbox.choose import open_sandbox
    from .sandbox.server import MOST, serve_sandbox
    from .sandbox.wire import checked_token

    token = checked_token(os.environ.get("LUDUS_SANDBOX_TOKEN"))
    most = MOST.but(**dict(parse_setting(text, "--limit") for text in limits or []))
    with open_sandbox(sandbox) as place, serve_sandbox(place, host=host, port=port, token=token, limits=most) as server:
        print(f"The sandbox server ({place.name}) is at {server.url}", flush=True)
        print("Ctrl-C ends this.", flush=True)
        try:
            server.wait()
        except KeyboardInterrupt:
            return


@new.command("env")
def new_environment(
    name: Annotated[str, typer.Argument(help="Lower-case letters, digits and hyphens, such as word-chess.")],
    directory: Annotated[Path, typer.Option(help="Where the new folder is made.")] = Path("."),
) -> None:
    """Write a new environment.

    It is a distribution of its own, which works at once and is there to be changed.
    """
    from .scaffold import new_env

    folder = new_env(name, directory)
    print(f"{folder} is written. Next: pip install -e {folder}, then change it and run pytest in it.")


def summary(result: EvalResult) -> str:
    """The lines that `ludus eval` prints."""
    rows = [
        ("accuracy", f"{result.accuracy:.4f}, 95% interval {result.low:.4f} to {result.high:.4f}"),
        ("tasks", f"{result.tasks} of {result.env}"),
        ("reward", f"{result.mean_reward:.4f} on average"),
        *((f"part {path}", part_summary(score)) for path, score in result.parts.items()),
        *((f"baseline {name}", f"{value:.4f}") for name, value in result.baselines.items()),
        ("outcomes", ", ".join(f"{count} {name}" for name, count in sorted(result.outcomes.items()))),
        *([("endpoint", usage_summary(result.usage))] if result.usage is not None else []),
        ("time", f"{result.seconds:.1f} s"),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:{width}}  {text}" for name, text in rows)


def usage_summary(usage: Usage) -> str:
    """What was used of an endpoint."""
    tokens = f"{usage.prompt_tokens:,} tokens in, {usage.completion_tokens:,} out"
    cost = "" if usage.cost_usd is None else f", {usage.cost_usd:.4g} USD"
    return f"{usage.requests:,} requests, {tokens}{cost}"


def part_summary(score: PartScore) -> str:
    """One part of a rubric: its mean, with an interval where it is a share, and how often it gave no value."""
    if score.mean is None:
        text = "never judged"
    elif score.low is None:
        text = f"{score.mean:.4f} on average"
    else:
        text = f"{score.mean:.4f}, 95% interval {score.low:.4f} to {score.high:.4f}"
    counts = {"undecided": score.undecided, "lost to errors": score.errors, "not asked": score.not_asked}
    return "; ".join([text, *(f"{count} {name}" for name, count in counts.items() if count)])


def _quiet_transformers() -> None:
    """Our own display shows progress; theirs would write into it."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()


def _usage(complaint: Any) -> str:
    text = str(complaint.format_message()).strip().rstrip(".")
    if text.startswith("No such option: --") and "." in text:
        text += "; write overrides without dashes, such as policy.steps=100"
    context = getattr(complaint, "ctx", None)
    hint = f"`{context.command_path if context else 'ludus'} --help` shows what there is."
    return f"{text} {hint}" if text.endswith("?") else f"{text}; {hint}"


def _fail(text: str) -> None:
    for line in text.splitlines():
        _say(f"error: {line}")
    sys.exit(BAD_INPUT)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
