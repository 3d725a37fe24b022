"""Settings: everything that can move a cell's number, and nothing that cannot.

A frozen tree of pydantic models. `model` and `data` are tagged unions (by `kind`), so that a new model or data set is
one more member. Paths, worker counts, log levels and device indices are arguments of `run`, never settings; where a
setting must hold a path (to images, to weights), the identity leaves it out and takes a fingerprint of what lies there.

Does not belong here: reading YAML, edits by name (`harness.study`), torch.
"""

import re
from collections.abc import Collection, Mapping
from math import isfinite
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import core_schema

from harness.names import suggestion, with_hint
from harness.problems import problems_of
from harness.trainers.trainer import SettingsError
from harness.trees import flatten

Probability = Annotated[float, Field(ge=0, le=1)]
AsTuple = Field(strict=False)  # YAML and JSON know lists only
Channels = Annotated[tuple[float, float, float], AsTuple]


Option = bool | int | float | str | None | tuple[bool | int | float | str | None, ...]  # of somebody else's function


class Options(dict[str, Option]):
    """Arguments of somebody else's function: plain values, and lists of them as tuples; hashed by what they hold."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(tuple(sorted(self.items(), key=lambda item: item[0])))

    @classmethod
    def of(cls, value: object) -> "Options":
        """Raises ValueError for what is neither a plain value nor a list of them."""
        if not isinstance(value, Mapping):
            raise ValueError(f"must be names with values, not {value!r}")
        made = cls()
        for name, option in value.items():
            is_list = isinstance(option, list | tuple)
            items = tuple(option) if is_list else (option,)
            if not isinstance(name, str) or not all(map(_is_plain, items)):
                raise ValueError(
                    f"{name} must be a truth value, a finite number, a text or a list of these, not {option!r}"
                )
            made[name] = items if is_list else option
        return made

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: object) -> core_schema.CoreSchema:
        as_dict = core_schema.plain_serializer_function_ser_schema(dict)
        return core_schema.no_info_plain_validator_function(cls.of, serialization=as_dict)


def _is_plain(value: object) -> bool:
    return value is None or (isinstance(value, bool | int | float | str) and not _is_infinite(value))


def _is_infinite(value: object) -> bool:
    return isinstance(value, float) and not isfinite(value)


class _Part(BaseModel):
    """One branch of the tree: frozen, no unknown key, no NaN or infinity, no guessing of types (`yes` is no number)."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)


class ConvNet(_Part):
    """The report's network: blocks of convolution, ReLU, pooling [, batch norm], then two fully connected layers.

    Attributes:
        filters: output channels of each block.
        kernel_size: of every convolution, odd; the padding keeps the size ("same").
        pooling: `max` or `avg` over 2x2 after the activation; `stride` instead gives the convolution stride 2.
        batch_norm: batch normalization after each block's pooling (Table 1 of the report).
        batch_norm_fc: batch normalization after the activation of the hidden fully connected layer.
        hidden_units: width of the hidden fully connected layer.
        dropout: probability of zeroing a hidden unit before the last layer, in [0, 1).
        activation: in place of the report's ReLU, everywhere.
        initialization: of the weights: `default` is PyTorch's (He et al.'s uniform one with a = sqrt 5, biases too);
            `kaiming` normal by fan-in with gain sqrt 2 (He et al. 2015, eq. 10), `xavier` uniform (Glorot and Bengio
            2010, eq. 16), `orthogonal` (Saxe et al. 2014); these three leave biases at zero.
        residual: behind each block a branch of convolution, activation [, batch norm] that is added to its own input
            (He et al. 2016).
    """

    kind: Literal["convnet"] = "convnet"
    filters: Annotated[tuple[PositiveInt, ...], AsTuple, Field(min_length=1, max_length=8)] = (32, 64, 128)
    kernel_size: PositiveInt = 5
    pooling: Literal["max", "avg", "stride"] = "max"
    batch_norm: bool = False
    batch_norm_fc: bool = False
    hidden_units: PositiveInt = 64
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    activation: Literal["relu", "leaky-relu", "elu", "gelu", "silu", "tanh"] = "relu"
    initialization: Literal["default", "kaiming", "xavier", "orthogonal"] = "default"
    residual: bool = False

    @field_validator("kernel_size")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError(f"must be odd, so that padding can keep the image size; {value} is even")
        return value


RESNET18_LAYERS = ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "fc")


class ResNet18(_Part):
    """torchvision's ResNet18 with a new last layer.

    Attributes:
        weights: `imagenet` (torchvision's IMAGENET1K_V1), `none` (random), or `file:PATH` to a state dict: of
            torch.save, or `best.safetensors` of a cell that trained a ResNet18.
        trained_layers: top-level modules that train, the others are frozen; `("all",)` trains everything.
        frozen_batch_norm: whether frozen layers keep the running statistics of the weights and normalize by them
            (evaluation mode). The report's code left them in training mode: by the batch, statistics moving on.
    """

    kind: Literal["resnet18"] = "resnet18"
    weights: str = "imagenet"
    trained_layers: Annotated[tuple[str, ...], AsTuple, Field(min_length=1)] = ("layer4", "fc")
    frozen_batch_norm: bool = False

    @field_validator("weights")
    @classmethod
    def _known(cls, value: str) -> str:
        if value in ("imagenet", "none") or (value.startswith("file:") and len(value) > len("file:")):
            return value
        raise ValueError(f"must be 'imagenet', 'none' or 'file:PATH', not {value!r}")

    @field_validator("trained_layers")
    @classmethod
    def _layers(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        """In the network's order, each once, and all of them as `("all",)`: one spelling for one network."""
        unknown = [name for name in value if name not in (*RESNET18_LAYERS, "all")]
        if unknown or ("all" in value and set(value) != {"all"}):
            wrong = f"unknown {', '.join(map(repr, unknown))}" if unknown else "'all' beside others"
            raise ValueError(f"{wrong}; ResNet18 has {', '.join(RESNET18_LAYERS)}, or say ['all']")
        layers = tuple(name for name in RESNET18_LAYERS if name in value)
        return ("all",) if layers in ((), RESNET18_LAYERS) else layers

    @model_validator(mode="after")
    def _something_to_freeze(self) -> "ResNet18":
        normalized = {"bn1", "layer1", "layer2", "layer3", "layer4"}
        if self.frozen_batch_norm and (self.trained_layers == ("all",) or normalized <= set(self.trained_layers)):
            layers = ", ".join(self.trained_layers)
            raise ValueError(
                f"frozen_batch_norm is set, but trained_layers ({layers}) leave no batch normalization frozen; "
                "freeze one of its layers, or leave it out"
            )
        return self


class TorchvisionModel(_Part):
    """Any classification model of torchvision by name, with random weights (pretrained ones: `resnet18`).

    Attributes:
        name: as `torchvision.models.list_models` has it: `resnet34`, `convnext_tiny`.
        options: arguments of torchvision's builder, such as `width_per_group`.
    """

    kind: Literal["torchvision"] = "torchvision"
    name: str
    options: Options = Options()

    @field_validator("name")
    @classmethod
    def _known(cls, value: str) -> str:
        from harness.trainers.images.models.torchvision import check_name  # imports torchvision: seconds

        check_name(value)
        return value

    @field_validator("options")
    @classmethod
    def _taken(cls, value: Options, info: ValidationInfo) -> Options:
        from harness.trainers.images.models.torchvision import check_options

        if value and "name" in info.data:
            check_options(info.data["name"], value)
        return value


class PluginModel(_Part):
    """A user's own model: `factory` names a function by import path, `package.module:function`.

    It is called with the keyword arguments of `options` and `num_classes`, and returns an `nn.Module` that maps images
    (N, 3, H, W) to logits (N, num_classes). The hash of its source file is part of the cell's identity.
    """

    kind: Literal["plugin"] = "plugin"
    factory: str
    options: dict[str, bool | int | float | str] = {}

    @field_validator("factory")
    @classmethod
    def _import_path(cls, value: str) -> str:
        if re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", value):
            return value
        raise ValueError(f"must be 'package.module:function', not {value!r}")

    @field_validator("options", mode="before")
    @classmethod
    def _scalars(cls, value: Any) -> Any:
        for name, option in value.items() if isinstance(value, dict) else ():
            if not isinstance(option, bool | int | float | str) or (isinstance(option, float) and not isfinite(option)):
                raise ValueError(f"{name} must be a truth value, a finite number or a text, not {option!r}")
        return value


class Cifar10(_Part):
    """CIFAR-10 through torchvision: 50,000 training and 10,000 test images, 32x32, 10 classes."""

    kind: Literal["cifar10"] = "cifar10"


class Cifar100(_Part):
    """CIFAR-100 through torchvision: 50,000 training and 10,000 test images, 32x32, 100 classes."""

    kind: Literal["cifar100"] = "cifar100"


class ImageFolder(_Part):
    """`PATH/train/<class>/*` and `PATH/test/<class>/*`; images of any size are resized to `image_size` squares."""

    kind: Literal["image-folder"] = "image-folder"
    path: Annotated[str, Field(min_length=1)]
    image_size: PositiveInt = 32


class Shapes(_Part):
    """32x32 RGB images of ten shapes that the project draws itself; no file, no network.

    Attributes:
        seed: of the drawing; another seed is another data set of the same kind.
        train_images, test_images: how many, over all ten classes.
    """

    kind: Literal["shapes"] = "shapes"
    seed: Annotated[int, Field(ge=0)] = 0
    train_images: Annotated[int, Field(ge=100)] = 10_000
    test_images: Annotated[int, Field(ge=10)] = 5_000


class Preprocessing(_Part):
    """What happens to every image, in training and in evaluation alike.

    Attributes:
        resize: side in pixels that images are resized to (bilinear, antialiased), or None to leave them.
        mean, std: per channel (red, green, blue), on pixel values in [0, 1].
    """

    resize: PositiveInt | None = None
    mean: Channels = (0.5, 0.5, 0.5)
    std: Annotated[tuple[PositiveFloat, PositiveFloat, PositiveFloat], AsTuple] = (0.25, 0.25, 0.25)


class Augmentation(_Part):
    """Random edits of training images, drawn for each image, in this order. Zeros (and None) mean: not used.

    Attributes:
        crop_padding: zero padding on each side, then a random crop back to the size.
        crop_size: random crop to this side in pixels, resized back (bilinear).
        brightness: pixel values are multiplied by a factor uniform in [1 - b, 1 + b] and clipped.
        rotation_degrees: rotation uniform in [-r, r] about the centre; uncovered pixels become zero (black).
        horizontal_flip, vertical_flip, grayscale: probabilities.
        cutout: side in pixels of a square about a random pixel that takes the mean colour (`preprocessing.mean`); it
            may reach over the edge (DeVries and Taylor 2017).
        mixup: alpha; each image becomes a share lambda ~ Beta(alpha, alpha) of itself and 1 - lambda of another one of
            its batch, and so does its label (Zhang et al. 2018); after normalization.
    """

    crop_padding: Annotated[int, Field(ge=0)] = 0
    crop_size: PositiveInt | None = None
    brightness: Probability = 0.0
    rotation_degrees: Annotated[float, Field(ge=0, le=180)] = 0.0
    horizontal_flip: Probability = 0.0
    vertical_flip: Probability = 0.0
    grayscale: Probability = 0.0
    cutout: Annotated[int, Field(ge=0)] = 0
    mixup: Annotated[float, Field(ge=0)] = 0.0


PLAIN_OPTIMIZERS = ("sgd", "adam", "adamw", "adamax")  # known without importing torch


class Optimizer(_Part):
    """What happens to the weights in a step, and at which learning rate.

    Attributes:
        name: of any optimizer of torch.optim that takes dense gradients of any shape, in small letters.
        momentum: of those that have one: sgd, rmsprop.
        weight_decay: the optimizer's own term.
        options: its other arguments, such as `betas`; those at torch's default are left out.
        schedule: of the learning rate, over `training.max_epochs`: `constant`; `cosine` falls to zero (Loshchilov and
            Hutter 2017, without restarts); `one-cycle` rises for 30% of the steps from 1/25 and then falls, both along
            a cosine, to 1/250,000 (Smith and Topin 2018, as torch's OneCycleLR). `learning_rate` is the highest rate.
        warmup_epochs: the rate grows linearly for so long before; one-cycle has its own.
        gradient_clip: the largest norm of all gradients together; a longer gradient is scaled down to it.
    """

    name: str = "sgd"
    learning_rate: Annotated[float, Field(gt=0)] = 5e-2
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    options: Annotated[Options, Field(validate_default=True)] = Options()
    schedule: Literal["constant", "cosine", "one-cycle"] = "constant"
    warmup_epochs: Annotated[float, Field(ge=0)] = 0.0
    gradient_clip: PositiveFloat | None = None

    @field_validator("name")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in PLAIN_OPTIMIZERS:
            from harness.trainers.images.optimizers import check_name  # imports torch: seconds

            check_name(value)
        return value

    @field_validator("options")
    @classmethod
    def _taken(cls, value: Options, info: ValidationInfo) -> Options:
        if not {"name", "learning_rate", "momentum", "weight_decay"} <= info.data.keys():
            return value  # one of them is wrong, and said to be
        if info.data["name"] in PLAIN_OPTIMIZERS and not value:
            return value
        from harness.trainers.images.optimizers import checked_options

        arguments = {name: info.data[name] for name in ("momentum", "weight_decay")}
        return Options(checked_options(info.data["name"], info.data["learning_rate"], arguments, value))

    @model_validator(mode="after")
    def _fits_together(self) -> "Optimizer":
        if self.momentum and self.name in PLAIN_OPTIMIZERS and self.name != "sgd":
            raise ValueError(f"momentum {self.momentum} is set, but {self.name} takes none; sgd and rmsprop do")
        if self.schedule == "one-cycle" and self.warmup_epochs:
            raise ValueError(
                f"warmup_epochs {self.warmup_epochs:g} is set, but one-cycle has a warm-up of its own; leave it out"
            )
        if self.name == "rprop" and (self.schedule != "constant" or self.warmup_epochs):
            raise ValueError("rprop uses the learning rate in its first step only, so that a schedule would do nothing")
        return self


def _split_seed(value: object) -> object:
    if value == "seed" or (isinstance(value, int) and not isinstance(value, bool) and value >= 0):
        return value
    raise ValueError(f"expected a whole number from 0, or 'seed', not {value!r}")


SplitSeed = Annotated[int | Literal["seed"], PlainValidator(_split_seed)]


class Training(_Part):
    """The protocol of the report; the defaults are its values.

    Attributes:
        batch_size: images a step; a last, shorter batch is dropped.
        validations_per_epoch: evenly, in optimizer steps: one every `steps_per_epoch // validations_per_epoch`.
        patience: stop when, of the last `patience` validation losses, the oldest is the smallest.
        validation_fraction: of the training images, drawn at random with `split_seed`: a number gives the same split to
            all seeds, `seed` draws it from each cell's own, the same for every variant (`--vary split`).
        precision: `bfloat16` computes convolutions and matrix products in bfloat16, the last layer excepted; `tf32`, on
            CUDA only, rounds the factors of all of them to 11 significant bits; `auto` is resolved to the hardware's
            native one, float32 or bfloat16, before a cell gets its key.
        threads: CPU threads of one cell; more than one gives other bits, so it is a setting.
        label_smoothing: share of a label that all classes get in equal parts (Szegedy et al. 2016), in training only.
        ema_decay: what is measured and kept are exponential moving averages of the weights (and of statistics), of
            which each step keeps this share, or (1 + n) / (10 + n) of step n where that is less; 0 for the weights
            themselves.
    """

    batch_size: PositiveInt = 64
    max_epochs: PositiveInt = 10
    validations_per_epoch: PositiveInt = 2
    patience: Annotated[int, Field(ge=2)] = 4
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    split_seed: SplitSeed = 0
    precision: Literal["auto", "float32", "tf32", "bfloat16"] = "auto"
    threads: PositiveInt = 1
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0


Model = Annotated[ConvNet | ResNet18 | TorchvisionModel | PluginModel, Field(discriminator="kind")]
Data = Annotated[Cifar10 | Cifar100 | ImageFolder | Shapes, Field(discriminator="kind")]
KINDS = {
    part.model_fields["kind"].default
    for part in (ConvNet, ResNet18, TorchvisionModel, PluginModel, Cifar10, Cifar100, ImageFolder, Shapes)
}

TAGGED = ("model", "data")  # unions, behind whose names pydantic puts the kind
# Settings that came after cells had been trained -> the value that means what those cells did. At that value (a default
# may change, it may not) a setting is no part of the identity, so that they keep their keys.
ADDED: dict[str, Any] = {
    "model.activation": "relu",
    "model.initialization": "default",
    "model.residual": False,
    "augmentation.cutout": 0,
    "augmentation.mixup": 0.0,
    "optimizer.options": {},
    "optimizer.schedule": "constant",
    "optimizer.warmup_epochs": 0.0,
    "optimizer.gradient_clip": None,
    "training.label_smoothing": 0.0,
    "training.ema_decay": 0.0,
}
OPTIONS = ("model.options.", "optimizer.options.")  # below them, names are somebody else's


class Settings(_Part):
    """Everything that can move one cell's number but the seed."""

    model: Model = ConvNet()
    data: Data = Cifar10()
    preprocessing: Preprocessing = Preprocessing()
    augmentation: Augmentation = Augmentation()
    optimizer: Optimizer = Optimizer()
    training: Training = Training()

    @model_validator(mode="after")
    def _warms_up_in_time(self) -> "Settings":
        warmup, epochs = self.optimizer.warmup_epochs, self.training.max_epochs
        if warmup >= epochs:
            raise ValueError(
                f"optimizer.warmup_epochs: {warmup:g} must be less than training.max_epochs, which is {epochs}"
            )
        return self

    @field_validator("model", mode="before")
    @classmethod
    def _convnet_by_default(cls, value: Any) -> Any:
        return {"kind": "convnet"} | dict(value) if isinstance(value, Mapping) else value

    def tree(self) -> dict[str, Any]:
        return self.model_dump(mode="json")

    def override(self, overrides: Mapping[str, Any]) -> "Settings":
        known = list(flatten(self.model_dump()))
        new_kinds = {path.rpartition(".")[0] for path in overrides if path.endswith(".kind")}
        unknown = [
            f"unknown setting {path!r}.{suggestion(path, known)}"
            for path in overrides
            if path not in known
            and path.partition(".")[0] not in new_kinds
            and not path.startswith(OPTIONS)
            and not _is_branch(path, known)
        ]
        if unknown:
            raise SettingsError(*unknown)
        try:
            return with_overrides(self, overrides)
        except ValidationError as error:
            raise SettingsError(*problems_of(error, tagged=TAGGED, tags=KINDS)) from None

    def identity(self) -> dict[str, Any]:
        """The tree as plain values, without what cannot move the number (where files lie), and without what was added
        since and is as it was before (`ADDED`)."""
        tree = self.model_dump(mode="json")
        for path, before in ADDED.items():
            branch, _, leaf = path.partition(".")
            if leaf in tree[branch] and tree[branch][leaf] == before:
                del tree[branch][leaf]
        tree["data"].pop("path", None)
        if str(tree["model"].get("weights", "")).startswith("file:"):
            tree["model"]["weights"] = "file"
        return tree


def parse_settings(tree: Mapping[str, Any]) -> Settings:
    """Settings from a study's `baseline`, or from `Settings.tree`.

    Raises:
        SettingsError: everything that is wrong, at once.
    """
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        known = list(flatten(Settings().model_dump()))
        problems = [with_hint(problem, known) for problem in problems_of(error, tagged=TAGGED, tags=KINDS)]
        raise SettingsError(*problems, places=[finding["loc"] for finding in error.errors()]) from None


def _is_branch(path: str, known: Collection[str]) -> bool:
    return any(it.startswith(f"{path}.") for it in known)


def with_overrides(settings: Settings, overrides: Mapping[str, Any]) -> Settings:
    """Settings with some leaves replaced. A change of a `kind` starts from that kind's defaults.

    Args:
        overrides: dotted path to value, as `flatten` gives them.

    Raises:
        pydantic.ValidationError: a path does not exist or a value is out of range.
    """
    tree = settings.model_dump()
    for path in sorted(overrides, key=lambda path: not path.endswith(".kind")):  # kinds first: they reset their branch
        *branches, leaf = path.split(".")
        node = tree
        for branch in branches:
            if not isinstance(node.get(branch), dict):
                node[branch] = {}
            node = node[branch]
        if leaf == "kind" and node.get("kind") != overrides[path]:
            node.clear()
        if overrides[path] == {} and isinstance(node.get(leaf), dict):
            continue  # an empty branch overrides nothing; set as a value, it would bring the defaults back
        node[leaf] = overrides[path]
    return Settings.model_validate(tree)
