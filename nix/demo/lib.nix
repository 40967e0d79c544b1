# What a collection of packages is composed with. Nixpkgs has the same two functions in its lib; they are short enough to
# show, and with them a collection needs no Nixpkgs to be composed.
rec {
  # Calls f with args and gives its result an `override`, which calls f once more with some of the arguments replaced.
  # The result of that can be overridden again. A result that is no set (a function, say) is left as it is.
  makeOverridable = f: args:
    let
      result = f args;
    in
    if builtins.isAttrs result
    then result // { override = newArgs: makeOverridable f (args // newArgs); }
    else result;

  # Calls the function in the file fn (or the function fn). Its formal arguments are taken by name from autoArgs: the
  # intersection, because a function without `...` refuses arguments that it does not name. What args says wins.
  callPackageWith = autoArgs: fn: args:
    let
      f = if builtins.isFunction fn then fn else import fn;
      auto = builtins.intersectAttrs (builtins.functionArgs f) autoArgs;
    in
    makeOverridable f (auto // args);
}
